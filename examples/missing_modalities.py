"""Train on samples that lack a modality, and predict for such samples.

Four of ten entries are missing in training: some digits have pixels alone, some
have the sums of rows and columns alone. `presence` says which: here it is found
from NaN. Values of absent modalities are never used.

    python examples/missing_modalities.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_mla
from keras_mla.datasets import missing

keras.utils.set_random_seed(0)


def encoder(size):
    """Returns an encoder of one layer."""
    return keras.Sequential(
        [keras.Input((size,)), keras.layers.Dense(64, "relu")]
    )


digits = load_digits()
pixels = digits.images.astype("float32") / 16
profile = np.concatenate([pixels.sum(1), pixels.sum(2)], axis=1) / 8
x = {"image": pixels.reshape(-1, 64), "profile": profile}
train, test = train_test_split(np.arange(len(pixels)), random_state=0)

model = keras_mla.MLA({"image": encoder(64), "profile": encoder(16)}, head=10)
presence = missing.missing_presence(len(train), model.modalities, rate=0.4)
x_train = {}
for column, name in enumerate(model.modalities):
    x_train[name] = x[name][train]
    x_train[name][~presence[:, column]] = np.nan
x_train["presence"] = keras_mla.datasets.presence_of(x_train)

model.compile(
    optimizer=keras.optimizers.Adam(0.003),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(
    x_train,
    digits.target[train],
    batch_size=64,
    epochs=15,
    verbose=0,
)

x_test, y_test = {name: v[test] for name, v in x.items()}, digits.target[test]
for title, absent in (
    ("both modalities", {}),
    ("image alone", {"profile": None}),
    ("profile alone", {"image": None}),
):
    logits = model.predict({**x_test, **absent}, verbose=0)
    accuracy = 100 * np.mean(logits.argmax(1) == y_test)
    print(f"{title:16s} {accuracy:5.1f} % right")
