"""See what each modality contributes: logits, weights, features, figures.

python examples/look_inside.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_mla
from keras_mla import analysis

keras.utils.set_random_seed(0)
digits = load_digits()
pixels = digits.images.astype("float32") / 16
profile = np.concatenate([pixels.sum(1), pixels.sum(2)], axis=1) / 8
x = {"image": pixels.reshape(-1, 64), "profile": profile}
train, test = train_test_split(np.arange(len(pixels)), random_state=0)


def part(rows):
    """Returns inputs and labels of some digits."""
    return {name: v[rows] for name, v in x.items()}, digits.target[rows]


model = keras_mla.MLA(
    {
        name: keras.Sequential(
            [keras.Input((size,)), keras.layers.Dense(64, "relu")]
        )
        for name, size in (("image", 64), ("profile", 16))
    },
    head=10,
)
model.compile(
    optimizer=keras.optimizers.Adam(0.003),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(
    *part(train),
    batch_size=64,
    epochs=10,
    validation_data=part(test),
    # How many directions the head can still learn in.
    callbacks=[keras_mla.callbacks.ProjectorTrace()],
    verbose=0,
)
x_test, y_test = part(test)

print("The first digit, a", y_test[0])
first = {name: v[:1] for name, v in x_test.items()}
found = model.predict_modalities(first)
for name in model.modalities:
    digit, weight = found[name]["logits"].argmax(), found[name]["weight"][0]
    print(f"  {name:8s} says {digit}, weighs {weight:.2f}")
print("  together they say", found["fused"].argmax())

gap = analysis.modality_gap(model.features(x_test))
print(f"gap of the features: {gap['image', 'profile']:.2f}")

alone = model.unimodal("profile")  # a keras.Model that shares the weights
right = alone.predict(x_test["profile"], verbose=0).argmax(1) == y_test
print(f"profile alone: {100 * right.mean():.1f} % right")

analysis.plot_history(history, model.modalities, path="learning.png")
analysis.plot_modality_gap({"MLA": model.features(x_test)}, path="gap.png")
print("Figures: learning.png, gap.png")
