"""Trains a method once, chooses the epoch on validation, and predicts."""

import dataclasses
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mla.callbacks import EpochSeed
from keras_mla.comparison import data as data_lib
from keras_mla.comparison.choice import Backup, Choice
from keras_mla.comparison.data import Data, Fold, Part
from keras_mla.comparison.encoders import make_encoder
from keras_mla.comparison.frozen import whole
from keras_mla.comparison.metrics import Metric
from keras_mla.models import registry

LOSSES: dict[str, Callable[[], Any]] = {
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
        callbacks: Functions that return new callbacks, which need no state of
            their own to go on after a kill.
    """

    metric: Metric
    encoders: Mapping[str, Any]
    width: int
    epochs: int
    batch_size: int
    optimizer: Any
    callbacks: Sequence[Callable[[], Any]] = ()

    @property
    def predicted_at_once(self) -> int:
        """Samples in a batch of a prediction, which keeps no gradients."""
        return 4 * self.batch_size


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
    raw: bool = False,
    **kwargs: Any,
) -> Any:
    """Returns a compiled model of a method, built from a seed.

    Args:
        method: The method.
        data: `Data`.
        fold: One of its folds.
        setting: dict of learning rate, weight decay and the method's own.
        seed: int.
        options: `Options`.
        raw: bool. Whether the model takes what frozen encoders take, where the
            data hold their features. Defaults to `False`.
        **kwargs: Further arguments of the method.
    """
    keras.utils.set_random_seed(seed)
    own = dict(setting)
    rate, decay = own.pop("learning_rate"), own.pop("weight_decay")
    train = fold.parts["train"]
    if "monitor" in method.defaults:
        # It chooses by itself the epoch of each modality.
        higher = options.metric.higher_is_better
        kwargs |= {"monitor": options.metric.name}
        kwargs |= {"mode": "max" if higher else "min"}
    features = any(frozen.cached for frozen in data.frozen.values())
    if fold.table is not None and (raw or not features):
        kwargs["table"] = fold.table
    model = method.make(
        _encoders(data, fold, options, raw, "frozen" in method.needs),
        data.units,
        len(train.y),
        own,
        task=data.task,
        **kwargs,
    )
    make = options.optimizer
    make = OPTIMIZERS[make] if isinstance(make, str) else make
    model.compile(optimizer=make(rate, decay), loss=LOSSES[data.task]())
    return model


def _encoders(
    data: Data, fold: Fold, options: Options, raw: bool, stay: bool
) -> dict[str, Any]:
    """Returns the encoders, for a method that trains them or lets them stay."""
    encoders = {}
    for name in data.modalities:
        given = options.encoders.get(name)
        if callable(given) and not isinstance(given, str):
            encoders[name] = given()
            continue
        if fold.sample is None:
            # Once: shuffled batches would scale each model in another way.
            fold.sample = _sample(data, fold.parts["train"])
        x, presence = fold.sample
        present = presence[:, data.modalities.index(name)]
        frozen = data.frozen.get(name)
        kind = given if frozen is None else "mlp"
        encoders[name] = make_encoder(
            x[name], present, kind, options.width, trained=not stay
        )
        if frozen is not None and (raw or not frozen.cached):
            encoders[name] = whole(frozen, encoders[name])
    return encoders


def _sample(data: Data, train: Part) -> tuple[dict, np.ndarray]:
    """Returns inputs to scale by: all of them, or the first batches."""
    if train.in_memory:
        x, presence = train.x, data_lib.presence_of(data, train)
    else:
        x, presence = _of_batches(data, train)
    features = {
        name: frozen.encoder.predict(x[name], verbose=0)
        for name, frozen in data.frozen.items()
        if not frozen.cached
    }
    return {**x, **features}, presence


def _of_batches(data: Data, train: Part) -> tuple[dict, np.ndarray]:
    """Returns the inputs of the first batches, and their presence."""
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
    part = fold.parts["train"]
    extra = {}
    if method.teacher is not None:
        first, shared = _first_stage(method, setting)
        at = None if folder is None else folder / "teacher"
        taught = train(first, data, fold, shared, seed, options, at)
        extra["teacher"] = taught.model
        start = time.monotonic() - taught.seconds
    seeds = EpochSeed(seed)
    model = make_model(method, data, fold, setting, seed, options, **extra)
    x, y = part.batches(seed), part.y
    if part.in_memory:
        x, y = method.prepare(model, x, y)
    elif "adapt" in method.needs:
        model.adapt(part.batches(seed))
    choose = Choice(
        data,
        options.metric,
        fold.parts["validation"],
        options.predicted_at_once,
        own="monitor" in method.defaults,
    )
    # `choose` comes last: what the others log is in the curves.
    callbacks: list[Any] = [seeds, *(make() for make in options.callbacks)]
    callbacks.append(choose)
    first_epoch = 0
    if folder is not None and not choose.own:
        folder.mkdir(parents=True, exist_ok=True)
        backup = Backup(folder, choose, start)
        build(model, data, part)
        first_epoch = backup.restore(model)
        start = backup.start
        callbacks.append(backup)
    arguments: dict[str, Any] = {"x": x}
    if part.in_memory:
        arguments |= {"y": y, "batch_size": options.batch_size}
    model.fit(
        **arguments,
        epochs=options.epochs,
        initial_epoch=first_epoch,
        callbacks=callbacks,
        shuffle=part.in_memory,
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


def of_raw(
    model: Any,
    method: registry.Method,
    data: Data,
    fold: Fold,
    setting: Mapping[str, Any],
    seed: int,
    options: Options,
) -> Any:
    """Returns a trained model that takes what frozen encoders take.

    Args:
        model: The model as it was trained, on features of frozen encoders.
        method: Its method.
        data: `Data`.
        fold: The fold it was trained on.
        setting: Its setting.
        seed: Its seed.
        options: `Options`.

    Returns:
        `model` itself, if no data are features.
    """
    frozen = [f.encoder for f in data.frozen.values() if f.cached]
    if not frozen:
        return model
    extra: dict[str, Any] = {}
    if method.teacher is not None:
        first, shared = _first_stage(method, setting)
        of_first = (first, data, fold, shared, seed, options)
        if method.of_teacher is not None:
            # Only encoders are taken from it, and their weights follow.
            taught = make_model(*of_first, raw=True)
            extra["copied"] = False
        else:
            # It takes what the model takes.
            taught = of_raw(model.teacher.model, *of_first)
        extra["teacher"] = taught
    made = make_model(
        method, data, fold, setting, seed, options, raw=True, **extra
    )
    x, _ = next(data_lib.batches_of(fold.parts["train"], 2))
    given = {n: f.encoder.input for n, f in data.frozen.items() if f.cached}
    made.build_for(
        {name: x[name] for name in data.modalities}
        | keras.tree.map_structure(
            lambda i: np.zeros((2, *i.shape[1:]), i.dtype), given
        )
    )
    own, trained = (
        _weights_besides(m, [*frozen, getattr(m, "teacher", None)])
        for m in (made, model)
    )
    if model.compiled:  # A teacher is not.
        # What is frozen has no state in the optimizer.
        made.optimizer.build(made.trainable_variables)
        own += made.optimizer.variables
        trained += model.optimizer.variables
    for variable, value in zip(own, trained, strict=True):
        variable.assign(value)
    return made


def _weights_besides(model: Any, parts: Sequence[Any]) -> list[Any]:
    """Returns the weights of a model that are in none of its parts."""
    theirs = {id(w) for part in parts if part for w in part.weights}
    return [w for w in model.weights if id(w) not in theirs]


def _first_stage(
    method: registry.Method, setting: Mapping[str, Any]
) -> tuple[registry.Method, dict[str, Any]]:
    """Returns the method of a method's teacher, and its setting."""
    shared = {k: setting[k] for k in ("learning_rate", "weight_decay")}
    return registry.METHODS[method.teacher or ""], shared


def build(model: Any, data: Data, part: Part) -> None:
    """Builds a model for inputs like those of a split."""
    x, _ = next(data_lib.batches_of(part, 2))
    if not model.built:
        model.build_for({name: x[name] for name in data.modalities})
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
