"""Compares MLA with other methods: the paper's Tables 1 and 3 for your data.

    KERAS_BACKEND=jax python experiments/compare_methods.py \
        --data=digits --methods=table,ablation --seeds=0,1,2 --out=runs/digits

Each method has the same budget: `--trials` settings, each trained with the
first `--trial_seeds` seeds. Learning rates and weight decays are the same for
all methods; a method's own parameters take their values in turn. The setting
with the highest mean validation accuracy is chosen and, in every run, the epoch
with the highest (of equals the one with the lower negative log-likelihood, then
the first). The chosen setting trains once per seed. Only these runs read the
test split, once each.

Each run appends its result to `runs.jsonl` when it ends; a restart with the
same flags continues from there. At the end, the script writes `table.csv`,
`table.md` and `figure.png` next to it.
"""

# ruff: noqa: E402
import functools
import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "jax")
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import keras
import numpy as np
from absl import app, flags
from comparison import data as data_sets
from comparison import methods as known_methods
from comparison import tables
from comparison.runs import Runs, best_setting
from sklearn.model_selection import ParameterGrid, ParameterSampler
from tqdm import tqdm

from keras_mla.metrics import ExpectedCalibrationError

FLAGS = flags.FLAGS
flags.DEFINE_string("data", "digits", "'digits', or the path of an `.npz`.")
flags.DEFINE_list("modalities", [], "Arrays to use; default: all.")
flags.DEFINE_list(
    "encoder",
    [],
    f"Encoders as modality:kind, of the kinds {data_sets.KINDS}; default: as "
    "the array's shape and dtype suggest.",
)
flags.DEFINE_integer("width", 64, "Features per modality.", lower_bound=1)
flags.DEFINE_list(
    "methods",
    ["table"],
    "Names of methods, or 'table' and 'ablation' for all methods of these. "
    "Write ';' for a comma in a name.",
)
flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the final runs.")
flags.DEFINE_integer("trials", 6, "Settings to try per method.", lower_bound=1)
flags.DEFINE_integer(
    "trial_seeds", 1, "Seeds of each trial, from the first.", lower_bound=1
)
flags.DEFINE_integer("epochs", 30, "Epochs of a run.", lower_bound=1)
flags.DEFINE_integer("batch_size", 64, "Samples in a batch.", lower_bound=1)
flags.DEFINE_enum("optimizer", "adam", ["adam", "sgd"], "AdamW, or SGD.")
flags.DEFINE_list("learning_rate", [], "Values to choose from.")
flags.DEFINE_list("weight_decay", ["1e-4", "1e-2"], "Values to choose from.")
flags.DEFINE_string("out", "runs/comparison", "Directory of the results.")

RATES = {"adam": ["3e-4", "1e-3", "3e-3"], "sgd": ["1e-2", "3e-2", "1e-1"]}


class KeepBest(keras.callbacks.Callback):
    """Restores a model to the epoch with the best validation score."""

    def __init__(self) -> None:
        super().__init__()
        self.best: tuple[float, float] | None = None
        self.epoch = -1

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Keeps the weights if the epoch is the best so far."""
        logs = logs or {}
        score = (logs["val_accuracy"], -logs["val_nll"])
        if self.best is None or score > self.best:
            self.best, self.epoch = score, epoch
            self.weights = self.model.get_weights()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Restores the weights of the best epoch."""
        self.model.set_weights(self.weights)


def train(
    method: known_methods.Method,
    data: data_sets.Data,
    setting: dict[str, Any],
    seed: int,
) -> tuple[Any, dict]:
    """Trains a model; returns it as in its best epoch, and that epoch."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    setting = dict(setting)
    rate, decay = setting.pop("learning_rate"), setting.pop("weight_decay")
    kinds = dict(item.split(":") for item in FLAGS.encoder)
    encoders = {
        name: data_sets.make_encoder(
            array, kinds.get(name) or data_sets.kind_of(array), FLAGS.width
        )
        for name, array in data.x["train"].items()
    }
    y = data.y["train"]
    model = method.make(encoders, data.classes, len(y), **setting)
    optimizer = (
        keras.optimizers.AdamW(rate, weight_decay=decay)
        if FLAGS.optimizer == "adam"
        else keras.optimizers.SGD(rate, momentum=0.9, weight_decay=decay)
    )
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[
            "accuracy",
            keras.metrics.SparseCategoricalCrossentropy(
                name="nll", from_logits=True
            ),
        ],
    )
    keep = KeepBest()
    # An ensemble itself keeps the best epoch of each modality.
    own = hasattr(model, "best_epochs")
    model.fit(
        {**data.x["train"], "sample_id": np.arange(len(y))},
        y,
        validation_data=(data.x["validation"], data.y["validation"]),
        batch_size=FLAGS.batch_size,
        epochs=FLAGS.epochs,
        callbacks=[] if own else [keep],
        verbose=0,
    )
    return model, model.best_epochs if own else {"all": keep.epoch}


def predictions(model: Any, x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns logits of each modality, and fused ones under `"all"`."""
    parts: dict[str, list] = {name: [] for name in (*model.modalities, "all")}
    for start in range(0, len(x[model.modalities[0]]), 512):
        inputs = {
            name: keras.ops.convert_to_tensor(x[name][start : start + 512])
            for name in model.modalities
        }
        outputs = model.forward_pass(model.modalities, inputs, False)
        fused = model.fuse(outputs, None)
        for name, logits in {**outputs.logits, "all": fused}.items():
            parts[name].append(keras.ops.convert_to_numpy(logits))
    return {name: np.concatenate(part) for name, part in parts.items()}


def scores(logits: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Returns accuracy, negative log-likelihood and calibration error."""
    error = ExpectedCalibrationError()
    error.update_state(y, logits)
    z = logits - logits.max(axis=1, keepdims=True)
    right = z[np.arange(len(y)), y]
    return {
        "accuracy": float(np.mean(logits.argmax(axis=1) == y)),
        "nll": float(np.mean(np.log(np.exp(z).sum(axis=1)) - right)),
        "ece": float(error.result()),
    }


def run(
    name: str, phase: str, data: data_sets.Data, setting: dict, seed: int
) -> dict:
    """Trains once; a final run then reads the test split."""
    method = known_methods.METHODS[name]
    model, epochs = train(method, data, setting, seed)
    held_out, y = data.x["validation"], data.y["validation"]
    record = {
        "epochs": epochs,
        "validation": scores(predictions(model, held_out)["all"], y),
    }
    if phase == "final":
        logits = predictions(model, data.x["test"])
        if model.fusion is not None:
            record["fitted"] = model.calibrate((held_out, y))
            logits["calibrated"] = predictions(model, data.x["test"])["all"]
        record["test"] = {
            part: scores(z, data.y["test"]) for part, z in logits.items()
        }
    return record


def settings(method: known_methods.Method) -> list[dict[str, Any]]:
    """Returns the settings to try: shared rates, own values in turn."""
    rates = {
        "learning_rate": [
            float(v) for v in FLAGS.learning_rate or RATES[FLAGS.optimizer]
        ],
        "weight_decay": [float(v) for v in FLAGS.weight_decay],
    }
    shared = _sample(rates, FLAGS.trials)
    own = _sample(method.grid, FLAGS.trials)
    # Each whole round of `shared` meets `own` shifted by one more.
    return [
        {
            **shared[index % len(shared)],
            **own[(index + index // len(shared)) % len(own)],
        }
        for index in range(min(FLAGS.trials, len(shared) * len(own)))
    ]


def _sample(grid: dict[str, list], most: int) -> list[dict[str, Any]]:
    size = min(most, len(ParameterGrid(grid)))
    return list(ParameterSampler(grid, n_iter=size, random_state=0))


def main(_: list[str]) -> None:
    """Makes the missing runs, then the tables."""
    names = [name.strip().replace(";", ",") for name in FLAGS.methods]
    methods = known_methods.named(names)
    seeds = [int(seed) for seed in FLAGS.seeds]
    data = data_sets.load(FLAGS.data, FLAGS.modalities)
    directory = pathlib.Path(FLAGS.out)
    directory.mkdir(parents=True, exist_ok=True)
    relevant = (
        "data modalities encoder width trials epochs batch_size optimizer "
        "learning_rate weight_decay"
    )
    header = {flag: FLAGS[flag].value for flag in relevant.split()}
    tried = seeds[: FLAGS.trial_seeds]
    header |= {"backend": keras.backend.backend(), "trial_seeds": tried}
    runs = Runs(directory / "runs.jsonl", header)
    finals: list[dict] = []
    plan = {name: settings(method) for name, method in methods.items()}
    total = sum(
        len(seeds) + (len(grid) * len(tried) if len(grid) > 1 else 0)
        for grid in plan.values()
    )
    with tqdm(total=total, unit="run") as bar:
        for name, grid in plan.items():
            bar.set_description(name)

            def result(
                phase: str, setting: dict, seed: int, name: str = name
            ) -> dict:
                record = runs.get(
                    functools.partial(run, name, phase, data, setting, seed),
                    method=name,
                    phase=phase,
                    setting=setting,
                    seed=seed,
                )
                bar.update()
                return record

            # A single setting leaves nothing to choose.
            trials = [
                result("trial", setting, seed)
                for setting in (grid if len(grid) > 1 else [])
                for seed in tried
            ]
            setting = best_setting(trials) if trials else grid[0]
            finals += [result("final", setting, seed) for seed in seeds]
    print(tables.write(directory, data.modalities, finals))


if __name__ == "__main__":
    app.run(main)
