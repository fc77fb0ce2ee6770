"""Trains a method once, chooses the epoch on validation, and predicts."""

import dataclasses
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_mla.analysis.modality_gap import modality_gap
from keras_mla.analysis.shapley import shapley_values
from keras_mla.callbacks import EpochSeed
from keras_mla.comparison import data as data_lib
from keras_mla.comparison.data import Data, Fold, Part
from keras_mla.comparison.encoders import make_encoder
from keras_mla.comparison.metrics import METRICS, Metric
from keras_mla.comparison.results import (
    CALIBRATED,
    Predictions,
    subset_key,
    subsets,
)
from keras_mla.layers import InverseVarianceFusion
from keras_mla.models import registry

# Seconds of training after which a kill loses nothing before them.
_BACKUP_EVERY = 30.0
_LOSSES: dict[str, Callable[[], Any]] = {
    "single_label": lambda: keras.losses.SparseCategoricalCrossentropy(
        from_logits=True
    ),
    "multi_label": lambda: keras.losses.BinaryCrossentropy(from_logits=True),
    "regression": lambda: keras.losses.MeanSquaredError(),
}
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adamw": lambda rate, decay: keras.optimizers.AdamW(
        rate, weight_decay=decay
    ),
    "sgd": lambda rate, decay: keras.optimizers.SGD(
        rate, momentum=0.9, weight_decay=decay
    ),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What all runs of a comparison have in common.

    Attributes:
        metric: `Metric` that chooses the epoch.
        encoders: dict of modality to a kind of encoder, or a function that
            returns a new encoder. Modalities may lack.
        width: int. Number of features of an encoder by kind.
        epochs: int.
        batch_size: int.
        optimizer: str, a key of `OPTIMIZERS`, or a function of learning rate
            and weight decay.
    """

    metric: Metric
    encoders: Mapping[str, Any]
    width: int
    epochs: int
    batch_size: int
    optimizer: Any


@dataclasses.dataclass
class Trained:
    """A trained model, as in its best epoch."""

    model: Any
    epochs: dict[str, int]
    validation: dict[str, float]
    curves: dict[str, list[float]]
    seconds: float


def make_model(
    method: registry.Method,
    data: Data,
    fold: Fold,
    setting: Mapping[str, Any],
    seed: int,
    options: Options,
    **kwargs: Any,
) -> Any:
    """Returns a compiled model of a method, built from a seed."""
    keras.utils.set_random_seed(seed)
    own = dict(setting)
    rate, decay = own.pop("learning_rate"), own.pop("weight_decay")
    train = fold.parts["train"]
    if "monitor" in method.defaults:
        # It chooses by itself the epoch of each modality.
        higher = options.metric.higher_is_better
        kwargs |= {"monitor": options.metric.name}
        kwargs |= {"mode": "max" if higher else "min"}
    if fold.table is not None:
        kwargs["table"] = fold.table
    model = method.make(
        _encoders(data, train, options),
        data.units,
        len(train.y),
        own,
        task=data.task,
        **kwargs,
    )
    make = options.optimizer
    make = OPTIMIZERS[make] if isinstance(make, str) else make
    model.compile(optimizer=make(rate, decay), loss=_LOSSES[data.task]())
    return model


def _encoders(data: Data, train: Part, options: Options) -> dict[str, Any]:
    encoders, sample = {}, None
    for name in data.modalities:
        given = options.encoders.get(name)
        if callable(given) and not isinstance(given, str):
            encoders[name] = given()
            continue
        if sample is None:
            sample = _sample(data, train)
        x, presence = sample
        present = presence[:, data.modalities.index(name)]
        encoders[name] = make_encoder(x[name], present, given, options.width)
    return encoders


def _sample(data: Data, train: Part) -> tuple[dict, np.ndarray]:
    """Returns inputs to scale by: all of them, or the first batches."""
    if train.in_memory:
        return train.x, data_lib.presence_of(data, train)
    batches = [
        data_lib.stacked(data.modalities, x)
        for (x, _), _ in zip(
            data_lib.batches_of(train, 0), range(20), strict=False
        )
    ]
    x = keras.tree.map_structure(
        lambda *parts: np.concatenate(
            [keras.ops.convert_to_numpy(part) for part in parts]
        ),
        *batches,
    )
    presence = x.get("presence")
    if presence is None:
        rows = len(keras.tree.flatten(x)[0])
        presence = np.ones((rows, len(data.modalities)), bool)
    return x, presence


def train(
    method: registry.Method,
    data: Data,
    fold: Fold,
    setting: Mapping[str, Any],
    seed: int,
    options: Options,
    folder: pathlib.Path | None = None,
) -> Trained:
    """Trains a method from a seed.

    Args:
        method: The method.
        data: `Data`.
        fold: One of its folds.
        setting: dict of learning rate, weight decay and the method's own.
        seed: int.
        options: `Options`.
        folder: Where to keep what a killed run goes on from; `None`: nowhere.

    Raises:
        FloatingPointError: If the validation score is never a number.
    """
    keras.utils.clear_session(free_memory=False)
    start = time.monotonic()
    train = fold.parts["train"]
    extra = {}
    if method.teacher is not None:
        first = registry.METHODS[method.teacher]
        shared = {k: setting[k] for k in ("learning_rate", "weight_decay")}
        at = None if folder is None else folder / "teacher"
        taught = train_(first, data, fold, shared, seed, options, at)
        extra["teacher"] = taught.model
    seeds = EpochSeed(seed)
    model = make_model(method, data, fold, setting, seed, options, **extra)
    x, y = train.x, train.y
    if train.in_memory:
        x = {**x, "sample_id": np.arange(len(y))}
        if "complete" in method.needs:
            whole = data_lib.presence_of(data, train).all(axis=1)
            x, y = data_lib.take(x, whole), y[whole]
    if "adapt" in method.needs:
        model.adapt(x, y)
    choose = _Choose(data, fold.parts["validation"], options, model)
    callbacks: list[Any] = [seeds, choose]
    first_epoch = 0
    if folder is not None and not choose.own:
        folder.mkdir(parents=True, exist_ok=True)
        backup = _Backup(folder, choose)
        build(model, data, train)
        first_epoch = backup.restore(model)
        callbacks.append(backup)
    arguments: dict[str, Any] = {"x": x}
    if train.in_memory:
        arguments |= {"y": y, "batch_size": options.batch_size}
    model.fit(
        **arguments,
        epochs=options.epochs,
        initial_epoch=first_epoch,
        callbacks=callbacks,
        shuffle=train.in_memory,
        verbose=0,
    )
    seconds = time.monotonic() - start
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    choose.finish()
    if choose.epochs is None:
        raise FloatingPointError(
            "Training diverged: the validation score was never a number."
        )
    return Trained(
        model, choose.epochs, choose.scores, choose.curves, round(seconds, 2)
    )


train_ = train


def build(model: Any, data: Data, part: Part) -> None:
    """Builds a model for inputs like those of a split."""
    x, _ = next(data_lib.batches_of(part, 2))
    if not model.built:
        model.build_for({name: x[name] for name in data.modalities})
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def predict(
    model: Any, data: Data, part: Part, batch_size: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns outputs of each modality and fused ones, and weights."""
    if part.in_memory:
        found = model.predict_modalities(part.x, batch_size)
    else:
        parts = [
            model.predict_modalities(data_lib.stacked(data.modalities, x))
            for x, _ in data_lib.batches_of(part, 0)
        ]
        found = keras.tree.map_structure(
            lambda *arrays: np.concatenate(arrays), *parts
        )
    outputs = {name: found[name]["logits"] for name in data.modalities}
    weights = {
        name: found[name]["weight"]
        for name in data.modalities
        if "weight" in found[name]
    }
    return {**outputs, "fused": found["fused"]}, weights


class _Choose(keras.callbacks.Callback):
    """Measures validation after each epoch; restores the best epoch."""

    def __init__(
        self, data: Data, part: Part, options: Options, model: Any
    ) -> None:
        super().__init__()
        self.data, self.part, self.options = data, part, options
        self.metric = options.metric
        self.measures = METRICS[data.task]
        self.own = "monitor" in model.get_config()
        self.best: tuple[float, ...] | None = None
        self.best_epoch = -1
        self.epochs: dict[str, int] | None = None
        self.scores: dict[str, float] = {}
        self.curves: dict[str, list[float]] = {}
        self.weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the scores to the logs; keeps the weights if they are better."""
        logs = {} if logs is None else logs
        outputs, _ = predict(
            self.model, self.data, self.part, self.options.batch_size
        )
        name = self.metric.name
        for modality in self.data.modalities:
            logs[f"val_{modality}_{name}"] = self.metric(
                self.part.y, outputs[modality]
            )
        scores = self._measured(outputs["fused"])
        logs[f"val_{name}"] = scores[name]
        for key, value in logs.items():
            self.curves.setdefault(key, []).append(float(value))
        rank = self._rank(scores)
        if np.isnan(rank[0]) or (self.best is not None and rank <= self.best):
            return
        self.best, self.best_epoch, self.scores = rank, epoch, scores
        if not self.own:
            self.weights = self.model.get_weights()

    def _measured(self, fused: np.ndarray) -> dict[str, float]:
        return {n: m(self.part.y, fused) for n, m in self.measures.items()}

    def _rank(self, scores: Mapping[str, float]) -> tuple[float, ...]:
        """Returns what is larger for a better epoch; of equals, the surer."""
        sign = 1 if self.metric.higher_is_better else -1
        tie = -scores.get("log_loss", 0.0)
        return sign * scores[self.metric.name], np.nan_to_num(tie)

    def finish(self) -> None:
        """Restores the best epoch; measures a choice of the method itself."""
        if self.best is None:
            return
        if not self.own:
            self.model.set_weights(self.weights)
            self.epochs = {"all": self.best_epoch}
            return
        self.epochs = dict(self.model.best_epochs)
        size = self.options.batch_size
        outputs, _ = predict(self.model, self.data, self.part, size)
        self.scores = self._measured(outputs["fused"])


class _Backup(keras.callbacks.Callback):
    """Keeps what a killed run goes on from, if training takes long."""

    def __init__(self, folder: pathlib.Path, choose: _Choose) -> None:
        super().__init__()
        self.folder, self.choose = folder, choose
        self.last = time.monotonic()

    def restore(self, model: Any) -> int:
        """Returns the epoch to go on with, the model as it was before it."""
        # A file of states is written last, and at once.
        found = sorted(self.folder.glob("state-*.json"))
        if not found:
            return 0
        state = json.loads(found[-1].read_text())
        epoch, choose = state["epoch"], self.choose
        model.load_weights(self.folder / f"{epoch}.weights.h5")
        choose.best_epoch, choose.scores = state["best_epoch"], state["scores"]
        choose.curves = state["curves"]
        if state["best"] is not None:
            choose.best = tuple(state["best"])
            with np.load(self.folder / f"{epoch}.npz") as file:
                count = range(len(file.files))
                choose.weights = [file[f"arr_{i}"] for i in count]
        return epoch

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the state, if the last time is long ago."""
        if time.monotonic() - self.last < _BACKUP_EVERY:
            return
        old = list(self.folder.iterdir())
        following = epoch + 1
        self.model.save_weights(self.folder / f"{following}.weights.h5")
        np.savez(self.folder / f"{following}.npz", *self.choose.weights)
        state = {
            "epoch": following,
            "best": self.choose.best,
            "best_epoch": self.choose.best_epoch,
            "scores": self.choose.scores,
            "curves": self.choose.curves,
        }
        part = self.folder / "state.partial"
        part.write_text(json.dumps(state))
        part.replace(self.folder / f"state-{following:09d}.json")
        # The older state goes first, then what it names.
        for path in sorted(old, key=lambda path: path.suffix != ".json"):
            path.unlink()
        self.last = time.monotonic()


# === The test split ===


def examine(
    trained: Trained, data: Data, fold: Fold, options: Options
) -> dict[str, Any]:
    """Predicts the test split with each subset of modalities.

    Args:
        trained: `Trained`. Its model is calibrated at the end, if it can be.
        data: `Data`.
        fold: The fold it was trained on.
        options: `Options`.

    Returns:
        dict of `"predictions"`, a `Predictions` whose rows are those of the
        data; `"gap"` and `"worth"`, as `Run` has them.
    """
    model, test = trained.model, fold.parts["test"]
    size, names = options.batch_size, data.modalities
    own, weights = predict(model, data, test, size)
    everything = subset_key(names)
    outputs = {everything: own["fused"]}
    given = data_lib.presence_of(data, test)
    for subset in subsets(names):
        key = subset_key(subset)
        if key not in outputs:
            kept = given & [name in subset for name in names]
            outputs[key] = _hidden(model, data, test, kept, size)
    worth = _worth(data, fold, outputs, options.metric)
    features = _features(model, data, test, given, size)
    gap = {f"{a} / {b}": d for (a, b), d in modality_gap(features).items()}
    if calibrate(model, fold, size):
        outputs[CALIBRATED] = predict(model, data, test, size)[0]["fused"]
    return {
        "predictions": Predictions(test.rows, outputs, weights),
        "gap": gap,
        "worth": worth,
    }


def calibrate(model: Any, fold: Fold, size: int) -> bool:
    """Calibrates a model on validation data, if it can be calibrated."""
    part = fold.parts["validation"]
    fusion = model.fusion
    if fusion is None or (
        not model.task.certain and not isinstance(fusion, InverseVarianceFusion)
    ):
        return False
    model.calibrate((part.x, part.y) if part.in_memory else part.x, size)
    return True


def _hidden(
    model: Any, data: Data, part: Part, kept: np.ndarray, size: int
) -> np.ndarray:
    """Predicts with the modalities that `kept` leaves."""
    if part.in_memory:
        x = {**part.x, "presence": kept}
        return model.predict(x, batch_size=size, verbose=0)
    found, start = [], 0
    for x, y in data_lib.batches_of(part, size):
        rows = slice(start, start + len(y))
        start += len(y)
        x = {name: x[name] for name in data.modalities}
        found.append(
            keras.ops.convert_to_numpy(
                model.predict_on_batch({**x, "presence": kept[rows]})
            )
        )
    return np.concatenate(found)


def _features(
    model: Any, data: Data, part: Part, given: np.ndarray, size: int
) -> dict[str, np.ndarray]:
    """Returns features of the samples that have all modalities."""
    if len(data.modalities) < 2:
        return {}
    found: dict[str, list] = {}
    for x, _ in data_lib.batches_of(part, max(size, 512)):
        x = data_lib.stacked(data.modalities, x)
        for name, values in model.features(x, size).items():
            found.setdefault(name, []).append(values)
    features = {
        n: np.concatenate(v)[given.all(axis=1)] for n, v in found.items()
    }
    same = len({v.shape[1:] for v in features.values()}) == 1
    return features if same and given.all(axis=1).any() else {}


def _worth(
    data: Data, fold: Fold, outputs: dict[str, np.ndarray], metric: Metric
) -> dict[str, float]:
    """Returns each modality's Shapley value on the metric."""
    names = data.modalities
    if any(subset_key(s) not in outputs for s in subsets(names, len(names))):
        return {}
    y = fold.parts["test"].y
    prior = _prior(data.task, fold.parts["train"].y, data.units, len(y))

    def value(subset: tuple[str, ...]) -> float:
        return metric(y, outputs[subset_key(subset)] if subset else prior)

    return {n: float(v) for n, v in shapley_values(value, names).shares.items()}


def _prior(task: str, y: np.ndarray, units: int, count: int) -> np.ndarray:
    """Returns the prediction without any input, from training labels."""
    if task == "regression":
        row = y.reshape(len(y), -1).mean(axis=0)
    elif task == "multi_label":
        share = (y.sum(axis=0) + 0.5) / (len(y) + 1)
        row = np.log(share / (1 - share))
    else:
        counts = np.bincount(y.reshape(-1), minlength=units)
        row = np.log((counts + 0.5) / (len(y) + 0.5 * units))
    return np.tile(row.astype("float32"), (count, 1))
