"""Train on modalities that come from different collections.

One half of the digits gives images, the other half gives sums of rows and
columns: no sample has both. The two halves differ in size, and each has labels
of its own. At test time samples have both modalities.

    python examples/unpaired_modalities.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_mla

keras.utils.set_random_seed(0)


def encoder(size):
    """Returns an encoder of one layer."""
    return keras.Sequential(
        [keras.Input((size,)), keras.layers.Dense(64, "relu")]
    )


digits = load_digits()
pixels = digits.images.astype("float32") / 16
images, y = pixels.reshape(-1, 64), digits.target
profiles = np.concatenate([pixels.sum(1), pixels.sum(2)], axis=1) / 8
train, test = train_test_split(np.arange(len(y)), random_state=0)
ours, theirs = train[:400], train[400:]

model = keras_mla.MLA({"image": encoder(64), "profile": encoder(16)}, head=10)
model.compile(
    optimizer=keras.optimizers.Adam(0.003),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(
    keras_mla.UnpairedDataset(
        {
            "image": (images[ours], y[ours]),
            "profile": (profiles[theirs], y[theirs]),
        },
        batch_size=32,
    ),
    epochs=15,
    verbose=0,
)
scores = model.evaluate(
    {"image": images[test], "profile": profiles[test]},
    y[test],
    verbose=0,
    return_dict=True,
)
for name in ("image_accuracy", "profile_accuracy", "accuracy"):
    print(f"{name:17s} {100 * scores[name]:5.1f} % right")
