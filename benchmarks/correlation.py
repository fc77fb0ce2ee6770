"""Times the share of the correlation loss in a step of `DCCA`.

In one run, in turn and repeatedly, `fit` trains an epoch of `DCCA`, and of the
same model with the squares of its projections in place of their correlation:

    KERAS_BACKEND=jax python benchmarks/correlation.py --batch_size=1024 \
        --steps=20 --repeats=5

Flags, data, encoders and timing are those of `train_step.py`. The first epoch
does not count: it compiles. The share is the median over repetitions.
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

from keras_mla.core.losses import MeanLoss
from keras_mla.models import DCCA

FLAGS = flags.FLAGS
flags.DEFINE_integer("width", 64, "Width k of the projections.", lower_bound=1)
flags.DEFINE_boolean("smooth", True, "Whether correlations are squared.")


class WithoutCorrelation(DCCA):
    """`DCCA` with a loss that costs nothing."""

    def update_losses(self, update, outputs, losses, batch):
        """Returns the head's loss, and the mean square of projections."""
        squares = sum(keras.ops.mean(z**2) for z in outputs.kept)
        size = batch.size(self.modalities[0])
        return [self.fused_loss(outputs, batch), MeanLoss(squares, size)]


def main(_):
    """Runs the benchmark."""
    x, y = make_data()
    epochs = []
    for cls in (DCCA, WithoutCorrelation):
        encoders = {m: make_encoder(seed) for seed, m in enumerate(MODALITIES)}
        model = cls(encoders, CLASSES, width=FLAGS.width, smooth=FLAGS.smooth)
        epochs.append(by_fit(compiled(model), x, y))
    for epoch in epochs:
        epoch()
    times = [[epoch() for epoch in epochs] for _ in range(FLAGS.repeats)]
    whole, without = np.transpose(times) / FLAGS.steps
    shares = 1 - without / whole
    print(
        f"{keras.backend.backend()}, {FLAGS.encoder}, batch "
        f"{FLAGS.batch_size}, k = {FLAGS.width}: "
        f"{1e3 * np.median(whole):.1f} ms/step, correlation "
        f"{np.median(shares):.1%} ({shares.min():.1%} to {shares.max():.1%})"
    )


if __name__ == "__main__":
    app.run(main)
