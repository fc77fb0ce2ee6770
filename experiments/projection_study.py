"""When does the projection of the head's gradient help? MLA with and without.

    python experiments/projection_study.py --data=digits \
        --seeds=0,1,2,3,4 --out=runs/projection

The study changes one factor at a time around a base (AdamW, 20 epochs, batches
of 64, 64 features, two-layer encoders on flattened arrays). It trains MLA
without projection and with several projections; for the base, with all of them.
The mean validation accuracy over seeds at the end of training chooses one of
two learning rates. The study compares test accuracies of the fused prediction,
in pairs of equal seeds. For the base and SGD, it also measures *interference*:
how much a step for one modality changes the others' logits on the same batch,
relative to its own.

`--data` is `digits` or an `.npz` that `keras-mla compare` takes, or several
separated by commas.
Runs are appended to `<out>/<data>.jsonl` as they end, and a restart continues
from there. At the end, the script writes `table.md` and `figure.png`.
"""

# ruff: noqa: E402
import functools
import itertools
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Only JAX can train side by side in the way of `comparison/trial.py`.
os.environ["KERAS_BACKEND"] = "jax"
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import keras
import numpy as np
from absl import app, flags
from comparison import study_tables
from comparison.trial import Trial, pretrained, scaled
from tqdm import tqdm

import keras_mla
from keras_mla.comparison import sources
from keras_mla.comparison.log import Log
from keras_mla.layers import GradientProjector

FLAGS = flags.FLAGS
flags.DEFINE_list("data", ["digits"], "'digits', or paths of `.npz` files.")
flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds of each run.")
flags.DEFINE_list("factors", [], "Factors to change; default: all.")
flags.DEFINE_integer("epochs", 20, "Epochs of the base.", lower_bound=2)
flags.DEFINE_string("out", "runs/projection", "Directory of the results.")

FACTORS = {
    "base": {},
    "Adam": {"optimizer": "Adam"},
    "SGD": {"optimizer": "SGD"},
    "SGD with momentum": {"optimizer": "momentum"},
    "5 x epochs": {"epochs": 5},
    "batches of 8": {"batch_size": 8},
    "batches of 256": {"batch_size": 256},
    "8 features": {"width": 8},
    "256 features": {"width": 256},
    "correlated": {"mixed": True},
    "imbalance": {"noise": 2.0},
    "frozen": {"pretrained": 0.0},
    "fine-tuning": {"pretrained": 0.1},
}
PROJECTORS = {
    "none": None,
    "alpha 1": {"alpha": 1.0},
    "alpha 100": {"alpha": 100.0},
    "alpha 0.01": {"alpha": 0.01},
    "alpha 0.1": {"alpha": 0.1},
    "alpha 10": {"alpha": 10.0},
    "alpha 1000": {"alpha": 1000.0},
    "previous": {"alpha": 1.0, "order": "previous"},
    "forgetting 0.99": {"alpha": 1.0, "forgetting": 0.99},
    "forgetting 0.9": {"alpha": 1.0, "forgetting": 0.9},
}
RATES = {
    "AdamW": (1e-3, 3e-3),
    "Adam": (1e-3, 3e-3),
    "SGD": (0.1, 0.3),
    "momentum": (0.01, 0.03),
}
MEASURED = ("base", "SGD", "SGD with momentum")


def run(projector, factor, data, starts, pretrained):
    """Trains from all starts at once; returns accuracies by start."""
    changes = FACTORS[factor]
    encoders = pretrained() if "pretrained" in changes else None
    trial = Trial(mla(projector), data, changes, starts, encoders)
    epochs = FLAGS.epochs * changes.get("epochs", 1)
    early = max(1, epochs // 10)
    record = {}
    trial.fit(early)
    if factor in MEASURED:
        record["early"] = trial.interference()
    trial.fit(epochs - early)
    if factor in MEASURED:
        record["late"] = trial.interference()
    for split in ("validation", "test"):
        record[split] = trial.accuracy(split)
    keras.utils.clear_session()
    return keras.tree.map_structure(lambda a: np.round(a, 5).tolist(), record)


def mla(projector):
    """Returns a function that makes MLA with a projector."""

    def make(encoders, classes):
        own = PROJECTORS[projector]
        own = own and GradientProjector(**own)
        return keras_mla.MLA(encoders, classes, projector=own)

    return make


def study(name, source, bar):
    """Makes the missing runs of a data set; returns all its runs."""
    data = scaled(sources.load(source))
    path = pathlib.Path(FLAGS.out) / f"{name}.jsonl"
    log = Log(path, {"data": name, "epochs": FLAGS.epochs})
    records = []
    for factor in FLAGS.factors or FACTORS:
        rates = RATES[FACTORS[factor].get("optimizer", "AdamW")]
        starts = list(itertools.product(map(int, FLAGS.seeds), rates))
        # Made at first use: a restart may find all runs done.
        encoders = functools.cache(
            functools.partial(pretrained, data, FLAGS.epochs, starts)
        )
        few = None if factor == "base" else 3
        for projector in list(PROJECTORS)[:few]:
            make = functools.partial(
                run, projector, factor, data, starts, encoders
            )
            what = {"factor": factor, "projector": projector}
            what["starts"] = starts
            records.append(log.get(what) or log.add(what, make()))
            bar.update()
    return records


def main(_):
    """Makes the missing runs, then the table and the figure."""
    directory = pathlib.Path(FLAGS.out)
    directory.mkdir(parents=True, exist_ok=True)
    with tqdm(unit="run") as bar:
        results = {
            pathlib.Path(source).stem: study(
                pathlib.Path(source).stem, source, bar
            )
            for source in FLAGS.data
        }
    print(study_tables.write(directory, results))


if __name__ == "__main__":
    app.run(main)
