"""Multimodal models as classifiers and regressors of scikit-learn."""

import contextlib
import copy
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, compute_sample_weight
from sklearn.utils.multiclass import (
    check_classification_targets,
    type_of_target,
)
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from keras_mla.backend import step
from keras_mla.callbacks import EpochSeed
from keras_mla.comparison import methods
from keras_mla.comparison.encoders import make_encoder
from keras_mla.comparison.training import LOSSES, OPTIMIZERS
from keras_mla.core.arrays import full_presence
from keras_mla.models import registry
from keras_mla.presence import by_name
from keras_mla.wrappers.inputs import Inputs, as_rows, is_keyed

_HELD_OUT = 0.2
# Held by the thread whose seed the process has.
_SEEDED = threading.Lock()


class _Multimodal(BaseEstimator):
    """What a classifier and a regressor have in common."""

    def __init__(
        self,
        columns: Mapping[str, Any] | None = None,
        encoders: Mapping[str, Any] | None = None,
        method: Any = "MLA",
        *,
        settings: Mapping[str, Any] | None = None,
        width: int = 64,
        feature_dim: int | None = None,
        optimizer: Any = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 30,
        batch_size: int = 32,
        validation_fraction: float | None = None,
        calibration: str | None = None,
        callbacks: Sequence[Any] = (),
        kinds: Mapping[str, str] | None = None,
        root: Any = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.columns = columns
        self.encoders = encoders
        self.method = method
        self.settings = settings
        self.width = width
        self.feature_dim = feature_dim
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.calibration = calibration
        self.callbacks = callbacks
        self.kinds = kinds
        self.root = root
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        return tags

    # === Rows ===

    def _rows(self, X: Any, reset: bool) -> Any:
        """Checks X as scikit-learn does, and returns it as `as_rows` does."""
        rows = X
        if is_keyed(X):
            rows = as_rows(X)
            if isinstance(rows, dict):
                if reset:  # Of an earlier fit on a table.
                    for name in ("n_features_in_", "feature_names_in_"):
                        if hasattr(self, name):
                            delattr(self, name)
                return rows
            known = getattr(self, "feature_names_in_", None)
            if not reset and known is not None and set(rows) <= set(known):
                # Keys have no order, and one that lacks is an empty cell.
                rows = rows.reindex(columns=known)
        if hasattr(rows, "columns"):
            validate_data(self, rows, reset=reset, skip_check_array=True)
            if not rows.shape[0]:
                raise ValueError(
                    "Found array with 0 sample(s) while a minimum of 1 is "
                    "required: X has no row."
                )
        else:
            rows = validate_data(
                self, rows, reset=reset, ensure_all_finite="allow-nan"
            )
        return as_rows(rows, None if reset else self._names)

    def inputs(self, X: Any) -> dict[str, Any]:
        """Returns what `model_` takes.

        Args:
            X: Rows, as for `predict`.

        Returns:
            dict of modality to array, and `"presence"`, bool of shape
            `(rows, modalities)`, if a row lacks a modality.

        Raises:
            ValueError: If rows are not like the training rows.
        """
        check_is_fitted(self)
        return self.inputs_.of(self._rows(X, reset=False))

    def _outputs(self, X: Any) -> np.ndarray:
        x = self.inputs(X)
        count = _count(x)
        # Whole batches: they are compiled once, whatever the number of rows,
        # and a row's numbers hardly depend on what comes with it.
        if over := count % self.batch_size:
            more = [count - 1] * (self.batch_size - over)
            x = _take(x, np.array([*range(count), *more]))
        outputs = self.model_.predict(x, batch_size=self.batch_size, verbose=0)
        return outputs[:count]

    # === Training ===

    def _targets(self, y: Any) -> tuple[str, int, np.ndarray]:
        """Returns the task, the number of outputs, and labels for a model."""
        raise NotImplementedError

    def _weights(self, y: Any, sample_weight: Any) -> Any:
        """Returns the weights of samples, or `None`."""
        return sample_weight

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> None:
        rows = self._rows(X, reset=True)
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed,"
                " but the target y is None"
            )
        count = _count(rows)
        if not count:
            raise ValueError("X has 0 sample(s), and needs at least one.")
        task, units, labels = self._targets(y)
        self._task = task
        if count != len(labels):
            raise ValueError(
                "Found input variables with inconsistent numbers of samples: "
                f"X has {count} rows, y has {len(labels)}."
            )
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, labels)
        weights = self._weights(y, sample_weight)
        method = _one(self.method)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        train, held = self._divided(method, task, labels, seed)
        self._names = None if isinstance(rows, dict) else list(rows.columns)
        matrix = not hasattr(X, "columns") and not is_keyed(X)
        self.inputs_ = Inputs(self.columns, self.kinds, self.root)
        parts = [_take(rows, at) for at in (train, held)]
        self.inputs_.fit(parts[0], matrix)
        x = self.inputs_.of(parts[0])
        validation: tuple | None = None
        if len(held):
            validation = (self.inputs_.of(parts[1]), labels[held])
            if weights is not None:
                validation = (*validation, weights[held])
        with _own_randomness():
            self.model_ = self._train(
                method,
                (x, labels[train], None if weights is None else weights[train]),
                validation,
                (task, units),
                seed,
            )
        calibration = self.calibration or method.calibration
        if calibration is not None:
            self.model_.calibrate(validation, method=calibration)
        history = self.model_.history
        self.history_ = history.history
        self.n_iter_ = len(history.epoch)

    def _divided(
        self, method: registry.Method, task: str, y: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns which rows to train with, and which are held out."""
        needed = bool(self.calibration or method.calibration)
        share = self.validation_fraction
        if share is None:
            share = _HELD_OUT if needed else 0.0
        rows = np.arange(len(y))
        if not 0 <= share < 1 or (needed and not share):
            raise ValueError(
                "`validation_fraction` must be at least 0 and below 1"
                + (", and above 0 to calibrate" if needed else "")
                + f". Received: validation_fraction={share}"
            )
        if not share:
            return rows, rows[:0]
        classes = y if task == "single_label" else None
        train, held = train_test_split(
            rows, test_size=share, random_state=seed, stratify=classes
        )
        return np.sort(train), np.sort(held)

    def _train(
        self,
        method: registry.Method,
        data: tuple,
        validation: tuple | None,
        output: tuple[str, int],
        seed: int,
        first: bool = False,
    ) -> Any:
        """Returns a trained model; for a first stage, without callbacks."""
        x, y, weights = data
        task, units = output
        extra: dict[str, Any] = {}
        if method.teacher is not None:
            stage = registry.METHODS[method.teacher]
            extra["teacher"] = self._train(
                stage, data, validation, output, seed, first=True
            )
        if self.inputs_.table is not None:
            extra["table"] = self.inputs_.table
        given = {} if first else copy.deepcopy(dict(self.settings or {}))
        if self.feature_dim is not None:
            given["feature_dim"] = self.feature_dim
        own = {k: given.pop(k) for k in method.grid if k in given}
        keras.utils.set_random_seed(seed)
        stay = "frozen" in method.needs
        model = method.make(
            self._encoders(x, stay), units, len(y), own, task=task,
            **extra, **given,
        )  # fmt: skip
        make = self.optimizer
        if isinstance(make, str):
            if make not in OPTIMIZERS:
                raise ValueError(
                    f"`optimizer` must be one of {list(OPTIMIZERS)}, or a "
                    "function of learning rate and weight decay. "
                    f"Received: optimizer={make!r}"
                )
            make = OPTIMIZERS[make]
        rates = self.learning_rate, self.weight_decay
        if isinstance(make, type):  # One of Keras's optimizers.
            optimizer = make(rates[0], weight_decay=rates[1])
        else:
            optimizer = make(*rates)
        model.compile(
            optimizer,
            LOSSES[task](),
            metrics=["accuracy"] if task == "single_label" else None,
        )
        x, y, weights = method.prepare(model, x, y, weights)
        calls = [] if first or not self.callbacks else self.callbacks
        calls = copy.deepcopy(keras.tree.flatten(calls))
        model.fit(
            x,
            y,
            sample_weight=weights,
            batch_size=self.batch_size,
            epochs=self.epochs,
            validation_data=validation,
            callbacks=[EpochSeed(seed), *calls],
            verbose=self.verbose,
        )
        return model

    def _encoders(self, x: dict[str, Any], stay: bool) -> dict[str, Any]:
        """Returns new encoders, of what the user gave or by the values."""
        given = self.encoders or {}
        if not isinstance(given, Mapping):
            raise TypeError(
                "`encoders` must be a dict of modality to encoder. "
                f"Received: encoders={given!r}"
            )
        unknown = set(given) - set(self.inputs_.modalities)
        if unknown:
            raise ValueError(
                f"`encoders` has {sorted(unknown)}, which are no modalities. "
                f"The modalities are {list(self.inputs_.modalities)}."
            )
        presence = full_presence(self.inputs_.modalities, x)
        made = {}
        for index, name in enumerate(self.inputs_.modalities):
            if callable(given.get(name)):
                made[name] = _made(given[name])
                continue
            if any(a.dtype.kind in "OUS" for a in keras.tree.flatten(x[name])):
                raise ValueError(
                    f"Modality {name!r} holds words, for which there is no "
                    "small encoder. In a DataFrame they become tokens."
                )
            if isinstance(x[name], Mapping | list | tuple) and not (
                isinstance(x[name], Mapping)
                and set(x[name]) == {"token_ids", "padding_mask"}
            ):
                raise ValueError(
                    f"Modality {name!r} has several parts, for which there is "
                    f"no small encoder: give `encoders={{{name!r}: ...}}`."
                )
            there = presence[:, index]
            kind = given.get(name)
            made[name] = make_encoder(
                x[name], there, kind, self.width, trained=not stay
            )
        return made


def _one(method: Any) -> registry.Method:
    found = list(methods.chosen(method).values())
    if len(found) > 1:
        raise ValueError(
            "An estimator has one method. "
            f"Received: method={method!r}, which are {len(found)}."
        )
    return found[0]


def _made(encoder: Any) -> Any:
    """Returns a copy of a layer or a model, or what a function returns."""
    if not isinstance(encoder, keras.layers.Layer):
        return encoder()
    try:
        return copy.deepcopy(encoder)
    except (TypeError, NotImplementedError) as error:
        raise TypeError(
            f"The encoder {encoder.name!r} cannot be copied, and `fit` must "
            "not change it. Give a function that returns a new one, such as "
            f"`encoders={{...: make_encoder}}`. Keras says: {error}"
        ) from error


def _count(rows: Any) -> int:
    if not isinstance(rows, dict):
        return len(rows)
    given = {k: v for k, v in rows.items() if v is not None}
    if "presence" in given:
        given["presence"] = by_name(given["presence"])
    counts = {
        name: {len(leaf) for leaf in keras.tree.flatten(value)}
        for name, value in given.items()
    }
    if len(set().union(*counts.values())) > 1:
        raise ValueError(
            f"All modalities must have the same samples. Received: {counts}"
        )
    return max(set().union(*counts.values()), default=0)


def _take(rows: Any, at: np.ndarray) -> Any:
    if not isinstance(rows, dict):
        return rows.iloc[at]

    def taken(value: Any) -> Any:
        return None if value is None else np.asarray(value)[at]

    if rows.get("presence") is not None:
        rows = {**rows, "presence": by_name(rows["presence"])}
    return keras.tree.map_structure(taken, rows)


@contextlib.contextmanager
def _own_randomness() -> Iterator[None]:
    """Restores random numbers that others draw, which Keras seeds.

    Threads share them: one trains at a time, so that its seed decides.
    """
    with _SEEDED:
        python, numpy = random.getstate(), np.random.get_state()
        try:
            with step.keeping_randomness():
                yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class SKLearnMultimodalClassifier(ClassifierMixin, _Multimodal):
    """A multimodal classifier for scikit-learn.

    It is for `Pipeline`, `GridSearchCV`, `cross_val_score`,
    `CalibratedClassifierCV`, pickle and joblib. X may be

    - a DataFrame, everywhere;
    - a matrix of numbers, everywhere: it is one modality, unless `columns`
      divides it;
    - a list of dicts, one for each row, or a dict of columns;
    - a dict of modality to array, or to dict of arrays, in `fit` and
      `predict`: scikit-learn cannot divide it into folds.

    Tables go through `keras_mla.datasets.Table`, which learns scales,
    categories and vocabularies from the training rows. NaN, `None` and empty
    cells are absent values; where a modality has no others, the row lacks it.
    Of a dict of arrays, a row lacks a modality if any of its values is NaN, and
    a small encoder takes integers of two axes for tokens.

    `fit` reads all files of its rows at once, at most 4 GiB of them. For more,
    use `keras_mla.datasets.Table` and a model.

    It passes scikit-learn's `check_estimator`, but for the equivalence of a
    sample's weight and its repetition: batches are drawn from the rows.

    Args:
        columns: dict of modality name to its columns of X: names, positions,
            a slice, what `sklearn.compose.make_column_selector` returns, or a
            `Values`, `Text`, `Image`, `Sound` or `Video` of
            `keras_mla.datasets.table`. Defaults to one modality,
            `"features"`, for a matrix; for a DataFrame, to all columns as
            they look: numbers and categories are the modality `"table"`, each
            column of texts or of paths of files is its own. A dict of
            modality to array needs no columns.
        encoders: dict of modality name to an encoder: a function that returns
            a new layer or model; a layer or model, of which each `fit` trains
            a copy that begins with its weights, if it has any; or a kind,
            `"mlp"`, `"conv1d"`, `"conv2d"`, `"tokens"` or `"video"`. A
            modality that is left out gets a small encoder that suits it.
        method: A name as `keras_mla.comparison.compare` takes it, such as
            `"MLA"`, `"ConcatFusion"` or `"recommended"`; a class; or a
            `keras_mla.models.registry.Method`. Defaults to `"MLA"`.
        settings: dict of further arguments of the method, such as
            `{"alpha": 10.0}` or `{"modality_dropout": 0.3}`.
        width: int. Number of features of small encoders. Defaults to `64`.
        feature_dim: int. Projects the features of all encoders to this width,
            if your own have others than the small ones.
        optimizer: `"adamw"`, `"sgd"`, a class of `keras.optimizers`, or a
            function of learning rate and weight decay that returns an
            optimizer. Defaults to `"adamw"`.
        learning_rate: float. Defaults to `1e-3`.
        weight_decay: float. Defaults to `1e-4`.
        epochs: int. Defaults to `30`.
        batch_size: int. Defaults to `32`.
        validation_fraction: float. The share of rows that are held out, for
            callbacks such as early stopping and for `calibration`. Defaults to
            `0.2` where calibration needs them, and to `0.0` elsewhere.
        calibration: The `method` of `model.calibrate`, `"temperature"` or
            `"joint"`, which follows training. Defaults to that of the
            method: `"joint"` for `"recommended"`, none for all others.
        callbacks: sequence of `keras.callbacks.Callback`. Each `fit` takes
            copies.
        kinds: dict of column to kind, as for `keras_mla.datasets.Table`.
        root: str or path. The folder that paths in the table are relative to.
        random_state: int, `RandomState` or `None`, as for all of scikit-learn.
        verbose: `verbose` of `keras.Model.fit`. Defaults to `0`.
        class_weight: dict of class to weight, or `"balanced"`. Defaults to
            no weights.

    Attributes:
        model_: The trained `MultimodalModel`. It gives logits; `inputs(X)` is
            what it takes.
        classes_: array of classes; for an indicator matrix, column numbers.
        history_: dict of lists, the history of the training.
        n_features_in_, feature_names_in_: As for all of scikit-learn, where X
            is no dict.

    Example:
    >>> import pandas as pd
    >>> from keras_mla.wrappers import SKLearnMultimodalClassifier
    >>> X = pd.DataFrame(
    ...     {
    ...         "title": ["red shoes", "blue shirt", "red shirt", None] * 5,
    ...         "price": [20.0, 15.0, None, 9.0] * 5,
    ...     }
    ... )
    >>> y = ["shoes", "shirt", "shirt", "shoes"] * 5
    >>> classifier = SKLearnMultimodalClassifier(
    ...     {"text": "title", "facts": ["price"]}, epochs=2, random_state=0
    ... )
    >>> classifier.fit(X, y).predict_proba(X).shape
    (20, 2)

    Reference:
        `keras.wrappers.SKLearnClassifier`, for models of one input.
    """

    def __init__(
        self,
        columns: Mapping[str, Any] | None = None,
        encoders: Mapping[str, Any] | None = None,
        method: Any = "MLA",
        *,
        settings: Mapping[str, Any] | None = None,
        width: int = 64,
        feature_dim: int | None = None,
        optimizer: Any = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 30,
        batch_size: int = 32,
        validation_fraction: float | None = None,
        calibration: str | None = None,
        callbacks: Sequence[Any] = (),
        kinds: Mapping[str, str] | None = None,
        root: Any = None,
        random_state: Any = None,
        verbose: int = 0,
        class_weight: Any = None,
    ) -> None:
        super().__init__(
            columns,
            encoders,
            method,
            settings=settings,
            width=width,
            feature_dim=feature_dim,
            optimizer=optimizer,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            epochs=epochs,
            batch_size=batch_size,
            validation_fraction=validation_fraction,
            calibration=calibration,
            callbacks=callbacks,
            kinds=kinds,
            root=root,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Trains a new model.

        Args:
            X: Rows, see above.
            y: Classes `(rows,)`; or an indicator matrix `(rows, labels)`.
            sample_weight: float array `(rows,)`. Defaults to equal weights.

        Returns:
            The classifier itself.

        Raises:
            ValueError: If rows, labels and arguments do not fit together.
        """
        self._fit(X, y, sample_weight)
        return self

    def _targets(self, y: Any) -> tuple[str, int, np.ndarray]:
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y", raise_unknown=True)
        if kind == "multilabel-indicator":
            y = check_array(y, input_name="y")
            self.classes_ = np.arange(y.shape[1])
            return "multi_label", y.shape[1], y.astype("float32")
        if kind not in ("binary", "multiclass"):
            raise ValueError(
                "y must be one class for each row, or an indicator matrix. "
                f"Received: a target of the type {kind!r}"
            )
        y = column_or_1d(y, warn=True)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                "A classifier needs two classes to learn from. y holds one "
                f"class, {self.classes_[0]!r}."
            )
        return "single_label", len(self.classes_), codes.astype("int32")

    def _weights(self, y: Any, sample_weight: Any) -> Any:
        if self.class_weight is None:
            return sample_weight
        weights = compute_sample_weight(self.class_weight, y)
        return weights if sample_weight is None else weights * sample_weight

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns probabilities.

        Args:
            X: Rows, see above.

        Returns:
            float array `(rows, classes)`. Those of a row sum to 1, unless y
            was an indicator matrix.
        """
        logits = ops.convert_to_tensor(self._outputs(X))
        multi = self._task == "multi_label"
        found = ops.sigmoid(logits) if multi else ops.softmax(logits)
        return ops.convert_to_numpy(found)

    def predict(self, X: Any) -> np.ndarray:
        """Returns the most probable classes.

        Args:
            X: Rows, see above.

        Returns:
            array of classes `(rows,)`; or, if y was an indicator matrix, int
            array of zeros and ones `(rows, labels)`.
        """
        logits = self._outputs(X)
        if self._task == "multi_label":
            return (logits > 0).astype(int)
        return self.classes_[logits.argmax(axis=1)]


class SKLearnMultimodalRegressor(RegressorMixin, _Multimodal):
    """A multimodal regressor for scikit-learn.

    See `SKLearnMultimodalClassifier`, whose arguments it has, without
    `class_weight`. Numbers far from 0 and 1 are learned slowly: wrap the
    regressor in `sklearn.compose.TransformedTargetRegressor` with a
    `StandardScaler`.

    Args:
        columns: dict of modality name to its columns of X.
        encoders: dict of modality name to an encoder.
        method: A method that supports regression.
        **kwargs: `settings`, `width`, `feature_dim`, `optimizer`,
            `learning_rate`, `weight_decay`, `epochs`, `batch_size`,
            `validation_fraction`, `calibration`, `callbacks`, `kinds`, `root`,
            `random_state` and `verbose`.

    Attributes:
        model_: The trained `MultimodalModel`.
        history_: dict of lists, the history of the training.
        n_features_in_, feature_names_in_: As for all of scikit-learn, where X
            is no dict.

    Example:
    >>> from keras_mla.wrappers import SKLearnMultimodalRegressor
    >>> X = np.random.default_rng(0).normal(size=(40, 5))
    >>> regressor = SKLearnMultimodalRegressor(
    ...     {"front": [0, 1, 2], "back": [3, 4]}, epochs=2, random_state=0
    ... )
    >>> regressor.fit(X, X.sum(axis=1)).predict(X).shape
    (40,)

    Reference:
        `keras.wrappers.SKLearnRegressor`, for models of one input.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Trains a new model.

        Args:
            X: Rows, see `SKLearnMultimodalClassifier`.
            y: Numbers `(rows,)` or `(rows, targets)`.
            sample_weight: float array `(rows,)`. Defaults to equal weights.

        Returns:
            The regressor itself.

        Raises:
            ValueError: If rows, targets and arguments do not fit together.
        """
        self._fit(X, y, sample_weight)
        return self

    def _targets(self, y: Any) -> tuple[str, int, np.ndarray]:
        y = check_array(y, ensure_2d=False, dtype="numeric", input_name="y")
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        self._is_column = y.ndim == 1
        return "regression", 1 if y.ndim == 1 else y.shape[1], y.astype("f4")

    def predict(self, X: Any) -> np.ndarray:
        """Returns numbers.

        Args:
            X: Rows, see `SKLearnMultimodalClassifier`.

        Returns:
            float array, of the shape that y had.
        """
        outputs: np.ndarray = self._outputs(X).astype("float64")
        return outputs[:, 0] if self._is_column else outputs
