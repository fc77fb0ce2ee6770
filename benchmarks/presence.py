"""Times a training step with `presence` against one without.

In one run, in turn and repeatedly, a `LateFusion` of two frozen encoders of 16
million weights each trains its heads on one batch:

    KERAS_BACKEND=torch python benchmarks/presence.py

Every sample has all modalities, so that both do the same work: the ratio is
what handling absent samples costs. The first turn does not count: it compiles.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from absl import app, flags

import keras_mla

FLAGS = flags.FLAGS
flags.DEFINE_integer("steps", 20, "Steps of one turn.", lower_bound=1)
flags.DEFINE_integer("repeats", 7, "Turns.", lower_bound=1)
flags.DEFINE_integer("batch_size", 8, "Samples in a batch.", lower_bound=1)
flags.DEFINE_integer("width", 4000, "Units of an encoder's layers.")

MODALITIES = ("video", "audio")
INPUTS = 32


def make_encoder():
    """Returns an encoder of two wide layers, frozen."""
    encoder = keras.Sequential(
        [
            keras.Input((INPUTS,)),
            keras.layers.Dense(FLAGS.width),
            keras.layers.Dense(FLAGS.width),
            keras.layers.Dense(16),
        ]
    )
    encoder.trainable = False
    return encoder


def main(_):
    """Runs the benchmark."""
    model = keras_mla.models.LateFusion(
        {name: make_encoder() for name in MODALITIES}, 3
    )
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    x = {
        name: np.ones((FLAGS.batch_size, INPUTS), "float32")
        for name in MODALITIES
    }
    y = np.zeros(FLAGS.batch_size, "int32")
    presence = np.ones((FLAGS.batch_size, len(MODALITIES)), bool)
    seconds = {"without": [], "with": []}
    for turn in range(FLAGS.repeats + 1):
        for name, data in (
            ("without", x),
            ("with", {**x, "presence": presence}),
        ):
            model.train_on_batch(data, y)
            start = time.perf_counter()
            for _ in range(FLAGS.steps):
                model.train_on_batch(data, y)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    ratios = np.divide(seconds["with"], seconds["without"])
    print(
        f"{keras.backend.backend()}, batch {FLAGS.batch_size}, "
        f"{FLAGS.steps} steps x {FLAGS.repeats}: without presence "
        f"{1e3 * np.median(seconds['without']) / FLAGS.steps:.1f} ms/step; "
        f"with / without {np.median(ratios):.2f} "
        f"({ratios.min():.2f} to {ratios.max():.2f})"
    )


if __name__ == "__main__":
    app.run(main)
