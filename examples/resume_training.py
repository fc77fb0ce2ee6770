"""Interrupt training and go on: the weights are the same to the last bit.

python examples/resume_training.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tempfile

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_mla

digits = load_digits()
pixels = digits.images.astype("float32") / 16
profile = np.concatenate([pixels.sum(1), pixels.sum(2)], axis=1) / 8
x = {"image": pixels.reshape(-1, 64), "profile": profile}


class StopAfter(keras.callbacks.Callback):
    """Plays the part of a machine that fails."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        """Fails at the start of an epoch."""
        if epoch == self.epochs:
            raise KeyboardInterrupt


def make_model():
    """Returns a compiled model that draws random numbers as it trains."""
    keras.utils.set_random_seed(0)
    encoders = {
        name: keras.Sequential(
            [
                keras.Input((size,)),
                keras.layers.Dense(32, "relu"),
                keras.layers.Dropout(0.2),
            ]
        )
        for name, size in (("image", 64), ("profile", 16))
    }
    model = keras_mla.MLA(encoders, head=10)
    model.compile(
        optimizer=keras.optimizers.Adam(0.003),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def train(folder, *callbacks):
    """Trains for six epochs, from the backup in `folder` if there is one."""
    seed = keras_mla.callbacks.EpochSeed(0)
    backup = keras.callbacks.BackupAndRestore(folder, double_checkpoint=True)
    model = make_model()
    history = model.fit(
        x,
        digits.target,
        epochs=6,
        callbacks=[seed, backup, *callbacks],
        verbose=0,
    )
    return model, history


with tempfile.TemporaryDirectory() as folder:
    whole, _ = train(f"{folder}/whole")
    try:
        train(f"{folder}/parts", StopAfter(3))
    except KeyboardInterrupt:
        print("Interrupted after 3 epochs.")
    resumed, history = train(f"{folder}/parts")
print(f"Went on with epochs {[epoch + 1 for epoch in history.epoch]}.")
same = all(
    np.array_equal(one, other)
    for one, other in zip(
        whole.get_weights(), resumed.get_weights(), strict=True
    )
)
print(f"Same weights as without interruption: {same}")
