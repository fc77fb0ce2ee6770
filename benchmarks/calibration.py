"""Times `calibrate(method="joint")` against scikit-learn's logistic regression.

The competitor is fitted to the same logits, side by side, with its defaults.
In one run, in turn and repeatedly: one fit of the pool with a bias, to all
subsets of modalities; and the choice among all fusions, cross-fitting included.
The prediction of the logits is not timed:

    KERAS_BACKEND=torch python benchmarks/calibration.py --samples=5000 \
        --classes=101 --modalities=3 --repeats=3
"""

# ruff: noqa: E402
import os
import pathlib
import sys
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "torch")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras
import numpy as np
from absl import app, flags
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from keras_mla.core.calibration import joint
from keras_mla.core.calibration.samples import Samples
from keras_mla.models import LateFusion

FLAGS = flags.FLAGS
flags.DEFINE_integer("samples", 5000, "Samples.", lower_bound=10)
flags.DEFINE_integer("classes", 101, "Classes.", lower_bound=2)
flags.DEFINE_integer("modalities", 3, "Modalities.", lower_bound=1)
flags.DEFINE_integer("repeats", 3, "Repetitions.", lower_bound=1)


def main(_):
    """Runs the benchmark."""
    rng = np.random.default_rng(0)
    shape = (FLAGS.samples, FLAGS.modalities, FLAGS.classes)
    y = rng.permutation(np.arange(FLAGS.samples) % FLAGS.classes)
    z = (rng.normal(size=shape) + np.eye(FLAGS.classes)[y][:, None] * 2) * 2
    seen = np.ones(shape[:2], bool)
    others = np.zeros((len(y), 0, 0, FLAGS.classes))  # There are none.
    samples = Samples(z, seen, seen, y, np.ones(len(y)), others)
    model = LateFusion(
        {
            f"m{i}": keras.Sequential(
                [keras.Input((1,)), keras.layers.Dense(1)]
            )
            for i in range(FLAGS.modalities)
        },
        FLAGS.classes,
    )
    found = joint.candidates(model, samples)
    warnings.simplefilter("ignore", ConvergenceWarning)
    timed = {
        "LogisticRegression": lambda: LogisticRegression().fit(
            z.reshape(len(z), -1), y
        ),
        "one fit of the pool": lambda: found["pool with bias"].fit(samples),
        "joint calibration": lambda: joint.fit_jointly(model, samples),
    }
    seconds = {name: [] for name in timed}
    for _ in range(FLAGS.repeats):
        for name, run in timed.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    base = min(seconds["LogisticRegression"])
    for name, values in seconds.items():
        print(f"{name}: {min(values):.2f} s, ratio {min(values) / base:.2f}")


if __name__ == "__main__":
    app.run(main)
