"""See what each modality contributes: predictions, diagnostics, figures.

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
x_test, y_test = part(test)
interference = keras_mla.callbacks.Interference(x_test, y_test, every=20)
history = model.fit(
    *part(train),
    batch_size=64,
    epochs=10,
    validation_data=part(test),
    # How many directions the head can still learn in; what a step for one
    # modality does to the loss of the other.
    callbacks=[keras_mla.callbacks.ProjectorTrace(), interference],
    verbose=0,
)

print("The first digit, a", y_test[0])
first = {name: v[:1] for name, v in x_test.items()}
found = model.predict_modalities(first)
for name in model.modalities:
    digit, weight = found[name]["logits"].argmax(), found[name]["weight"][0]
    print(f"  {name:8s} says {digit}, weighs {weight:.2f}")
print("  together they say", found["fused"].argmax())

alone = model.unimodal("profile")  # a keras.Model that shares the weights
right = alone.predict(x_test["profile"], verbose=0).argmax(1) == y_test
print(f"profile alone: {100 * right.mean():.1f} % right")

print("Each modality adds, to the accuracy of all over a guess (points):")
worth = analysis.modality_worth(model, x_test, y_test, "accuracy")
for name, value in worth.shapley.items():
    print(f"  {name:8s} {100 * value:.1f}")

print("A linear read-out of features, trained together and alone (% right):")
lazy = analysis.laziness(model, part(train), part(test), batch_size=64)
for name in model.modalities:
    together = lazy.together[name].score
    print(f"  {name:8s} {100 * together:.1f} {100 * lazy.alone[name]:.1f}")

print("A step for the other modality adds to the loss, on average:")
for name, other in (("image", "profile"), ("profile", "image")):
    print(f"  {name:8s} {interference.mean_change[other][name]:+.4f}")

spectrum = analysis.projection_spectrum(model)["projector"]
size = len(spectrum.eigenvalues)
print(f"The head can still learn in {spectrum.trace:.0f} of {size} directions")
gap = analysis.modality_gap(model.features(x_test))
print(f"gap of the features: {gap['image', 'profile']:.2f}")

analysis.plot_history(history, model.modalities, path="learning.png")
worth.plot("worth.png")
lazy.plot("laziness.png")
analysis.plot_interference(interference, "interference.png")
analysis.plot_projection_spectrum({"MLA": model}, history, "spectrum.png")
analysis.plot_modality_gap({"MLA": model.features(x_test)}, path="gap.png")
print("Figures: learning, worth, laziness, interference, spectrum, gap (.png)")
