"""Times a training step of each method against `ConcatFusion`.

In one run, in turn and repeatedly, `fit` trains every method for an epoch:

    KERAS_BACKEND=jax python benchmarks/methods.py --encoder=resnet18 \
        --steps=6 --repeats=3

Flags, data, encoders and timing are those of `train_step.py`. The first epoch
of each method does not count: it compiles. Times are medians; ratios are
medians of the ratios within a repetition.
"""

# ruff: noqa: E402
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "jax")
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import keras
import numpy as np
from absl import app, flags
from train_step import (
    CLASSES,
    MODALITIES,
    by_fit,
    compiled,
    make_data,
    make_encoder,
)

from keras_mla.models import registry

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "methods", [*registry.METHODS], "Methods to time besides ConcatFusion."
)


def make(name, samples):
    """Returns a model of a method."""

    def encoders():
        return {m: make_encoder(seed) for seed, m in enumerate(MODALITIES)}

    method, given = registry.METHODS[name], {}
    if method.teacher is not None:  # What it has learned costs no time.
        first = registry.METHODS[method.teacher]
        given["teacher"] = first.make(encoders(), CLASSES, samples)
    return method.make(encoders(), CLASSES, samples, **given)


def main(_):
    """Runs the benchmark."""
    x, y = make_data()
    x["sample_id"] = np.arange(len(y))
    names = dict.fromkeys(["ConcatFusion", *FLAGS.methods])
    epochs = {}
    for name in names:
        model = make(name, len(y))
        if "adapt" in registry.METHODS[name].needs:
            model.adapt((x, y))
        epochs[name] = by_fit(compiled(model), x, y)
    for epoch in epochs.values():
        epoch()
    seconds = {name: [] for name in names}
    for _ in range(FLAGS.repeats):
        for name, epoch in epochs.items():
            seconds[name].append(epoch() / FLAGS.steps)
    print(
        f"{keras.backend.backend()}, {FLAGS.encoder}, "
        f"batch {FLAGS.batch_size}, {FLAGS.steps} steps x {FLAGS.repeats}"
    )
    for name, times in seconds.items():
        ratios = np.divide(times, seconds["ConcatFusion"])
        print(
            f"  {name:17s} {1e3 * np.median(times):9.3f} ms/step   "
            f"x {np.median(ratios):.3f} "
            f"({ratios.min():.3f} to {ratios.max():.3f})"
        )


if __name__ == "__main__":
    app.run(main)
