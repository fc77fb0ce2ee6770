"""Tasks: the meaning of labels and predictions."""

import functools
import inspect
from typing import Any

import keras
import numpy as np
from keras import ops

UNLABELLED = (
    "Samples without a label can be given a `sample_weight` of 0, or a class "
    "that the loss ignores (`SparseCategoricalCrossentropy(ignore_class=-1)`)."
)


class Task:
    """The meaning of labels and predictions. A task has no state.

    Attributes:
        name: Name of the task, as the argument `task` of a model takes it.
        certain: bool. Whether a prediction tells how certain it is.
    """

    name = ""
    certain = True

    def check_units(self, units: int) -> None:
        """Raises unless the head has enough units."""

    def check_labels(self, where: str, y: Any, units: int, loss: Any) -> None:
        """Raises unless labels fit predictions and loss, by their shapes.

        Args:
            where: Begins with a space and names the modality, or is empty.
            y: Labels.
            units: Number of logits.
            loss: The compiled loss.
        """
        raise NotImplementedError

    def check_values(
        self,
        where: str,
        y: Any,
        units: int,
        loss: Any,
        sample_weight: Any | None,
        presence: Any | None,
    ) -> None:
        """Raises if an array holds labels that cannot be right.

        Labels of samples with zero weight or without any modality may be
        anything.

        Args:
            where: Begins with a space and names the modality, or is empty.
            y: Array of labels.
            units: Number of logits.
            loss: The compiled loss.
            sample_weight: Array of shape `(samples,)`, or `None`.
            presence: Array of shape `(samples, modalities)`, or `None`.
        """
        labels = _numpy(y)
        given = [_numpy(v) for v in (sample_weight, presence) if v is not None]
        if (
            labels.dtype.kind not in "iufb"
            or labels.ndim == 0
            or any(v.ndim == 0 or len(v) != len(labels) for v in given)
        ):
            return  # Another check raises.
        stray = self.strays(labels, units, loss)
        if stray is None or not stray.any():
            return
        if sample_weight is not None:
            weight = _numpy(sample_weight)
            stray &= weight.reshape(len(labels), -1).any(axis=1)
        if presence is not None:
            stray &= _numpy(presence).astype(bool).any(axis=1)
        if stray.any():
            raise ValueError(
                f"Labels{where} {self.rule(units)} Received: "
                f"{int(stray.sum())} samples with other labels, among them "
                f"{labels[stray][0]}"
            )

    def strays(self, labels: np.ndarray, units: int, loss: Any) -> Any:
        """Returns which rows hold impossible labels; `None` if unchecked."""
        return None

    def rule(self, units: int) -> str:
        """Returns the end of a sentence that begins with "Labels"."""
        return ""

    def log_likelihood(self, labels: Any, logits: Any) -> Any:
        """Returns each sample's log-probability of its labels.

        Args:
            labels: Labels of a batch.
            logits: Tensor of shape `(batch, units)`.

        Returns:
            float32 tensor of shape `(batch,)`.
        """
        raise NotImplementedError

    def metric(self, metric: Any, units: int) -> Any:
        """Returns the metric to compile in place of the given metric."""
        return metric

    def negative_log_likelihood(self, logits: Any, y: Any) -> float:
        """Returns the mean over samples, computed by NumPy in float64."""
        raise NotImplementedError

    def labels_of(self, y: Any, units: int) -> np.ndarray:
        """Returns NumPy labels as `negative_log_likelihood` takes them."""
        raise NotImplementedError


class SingleLabel(Task):
    """One class of several for each sample."""

    name = "single_label"

    def check_units(self, units: int) -> None:
        """Raises unless there are at least two logits, one for each class."""
        if units < 2:
            raise ValueError(
                "The number of classes must be at least 2: the head has a "
                "logit for each class, even if there are two, and `y` says "
                "which class is right. For a yes or no, use a head of 2 and "
                "`SparseCategoricalCrossentropy(from_logits=True)`. "
                f"Received: a head with {units} unit(s)"
            )

    def check_labels(self, where: str, y: Any, units: int, loss: Any) -> None:
        """Raises unless labels are classes or one-hot, as the loss needs."""
        shape = tuple(y.shape)
        sparse = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
        one_hot = len(shape) == 2 and shape[1] == units
        if not sparse and not one_hot:
            raise ValueError(
                f"Labels{where} must have the shape (batch,), with a class in "
                f"each, or (batch, {units}), one-hot. For several labels or "
                "targets with a loss of your own, pass task='multi_label' or "
                f"task='regression' to the model. Received: shape {shape}"
            )
        if isinstance(loss, str):
            loss = keras.losses.get(loss)
        of_keras = (loss if inspect.isfunction(loss) else type(loss)).__module__
        if of_keras.partition(".")[0] != "keras":
            return  # A user's own loss may take any labels.
        if not (sparse if wants_classes(loss) else one_hot):
            raise ValueError(
                f"Labels{where} of shape {shape} do not fit the loss "
                f"{getattr(loss, '__name__', type(loss).__name__)}: integer "
                "classes of shape (batch,) go with "
                "SparseCategoricalCrossentropy, one-hot labels of shape "
                f"(batch, {units}) with the others."
            )

    def strays(self, labels: np.ndarray, units: int, loss: Any) -> Any:
        """Returns which rows hold a class that the head does not have."""
        if not wants_classes(loss) or labels.size != len(labels):
            return None
        labels = labels.reshape(-1)
        stray = (labels < 0) | (labels >= units)
        if loss.ignore_class is not None:
            stray &= labels != loss.ignore_class
        return stray

    def rule(self, units: int) -> str:
        """States which classes there are."""
        return (
            f"must be classes from 0 to {units - 1}: the head has {units} "
            f"units. Labels counted from 1 must be lowered by 1. {UNLABELLED}"
        )

    def log_likelihood(self, labels: Any, logits: Any) -> Any:
        """Returns the log-probability of the right class, `(batch,)`.

        Labels are classes `(batch,)` or `(batch, 1)`, or one-hot labels or
        probabilities `(batch, classes)`.
        """
        classes = logits.shape[-1]
        if len(labels.shape) != 2 or labels.shape[1] != classes:
            labels = ops.one_hot(
                ops.cast(ops.reshape(labels, (-1,)), "int32"), classes
            )
        log_p = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
        return ops.sum(ops.cast(labels, "float32") * log_p, axis=-1)

    def labels_of(self, y: Any, units: int) -> np.ndarray:
        """Returns classes, int of shape `(samples,)`."""
        if y.ndim == 2 and y.shape[1] == units:
            y = y.argmax(axis=1)
        y = y.reshape(-1).astype(int)
        outside = y[(y < 0) | (y >= units)]
        if outside.size:
            raise ValueError(
                f"Labels must lie between 0 and {units - 1}. "
                f"Received: {outside[0]}"
            )
        return y

    def negative_log_likelihood(self, logits: Any, y: Any) -> float:
        """Returns the mean cross-entropy."""
        logits = logits.astype("float64")
        logits = logits - logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(logits).sum(axis=1))
        return float(np.mean(log_sum - logits[np.arange(len(y)), y]))


class MultiLabel(Task):
    """Any number of labels for each sample: a yes or no for each label."""

    name = "multi_label"

    def check_labels(self, where: str, y: Any, units: int, loss: Any) -> None:
        """Raises unless labels have a column for each logit."""
        shape = tuple(y.shape)
        if shape[1:] != (units,) and not (units == 1 and len(shape) == 1):
            raise ValueError(
                f"Labels{where} of a multi-label task must have the shape "
                f"(batch, {units}), with 1 for each label that a sample has "
                "and 0 for the others. For one class of several, use "
                "`SparseCategoricalCrossentropy(from_logits=True)`, or pass "
                "task='single_label' to the model. "
                f"Received: shape {shape}"
            )

    def strays(self, labels: np.ndarray, units: int, loss: Any) -> Any:
        """Returns which rows hold anything but probabilities of labels."""
        # Not `|`: NaN is neither.
        inside = (labels >= 0) & (labels <= 1)
        return ~inside.reshape(len(labels), -1).all(axis=1)

    def rule(self, units: int) -> str:
        """States how labels are written."""
        return (
            "of a multi-label task must be 1 for each label that a sample has "
            "and 0 for the others (or probabilities)."
        )

    def log_likelihood(self, labels: Any, logits: Any) -> Any:
        """Returns the mean log-probability over labels."""
        labels = ops.reshape(ops.cast(labels, "float32"), ops.shape(logits))
        logits = ops.cast(logits, "float32")
        return -ops.mean(ops.softplus(logits) - labels * logits, axis=-1)

    def metric(self, metric: Any, units: int) -> Any:
        """Replaces the metric `"accuracy"` by one with a threshold of 0."""
        if isinstance(metric, str) and metric.lower() in ("accuracy", "acc"):
            return keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
        return metric

    def labels_of(self, y: Any, units: int) -> np.ndarray:
        """Returns float64 labels of shape `(samples, units)`."""
        return y.reshape(-1, units).astype("float64")

    def negative_log_likelihood(self, logits: Any, y: Any) -> float:
        """Returns the mean over samples and labels."""
        logits = logits.astype("float64")
        losses = np.logaddexp(0, logits) - y * logits
        return float(losses.mean())


class Regression(Task):
    """One or several numbers for each sample."""

    name = "regression"
    certain = False

    def check_labels(self, where: str, y: Any, units: int, loss: Any) -> None:
        """Raises unless there is a target for each output."""
        shape = tuple(y.shape)
        if shape[1:] != (units,) and not (units == 1 and len(shape) == 1):
            raise ValueError(
                f"Targets{where} must have the shape (batch, {units}), as many "
                "as the head has units"
                f"{', or (batch,)' if units == 1 else ''}. "
                f"Received: shape {shape}"
            )

    def strays(self, labels: np.ndarray, units: int, loss: Any) -> Any:
        """Returns which rows hold NaN or infinity."""
        return ~np.isfinite(labels).reshape(len(labels), -1).all(axis=1)

    def rule(self, units: int) -> str:
        """States what a target is."""
        return "of a regression must be finite numbers."

    def metric(self, metric: Any, units: int) -> Any:
        """Returns the metric, or raises if it is a metric of classes."""
        name = (
            metric
            if isinstance(metric, str)
            else getattr(metric, "__name__", type(metric).__name__)
        )
        if "accuracy" in name.lower() or name.lower() == "acc":
            raise ValueError(
                "Accuracy is a metric of classes, but the task is regression. "
                "Use a metric such as `keras.metrics.MeanAbsoluteError()` or "
                f"`keras.metrics.R2Score()`. Received: {name}"
            )
        return metric

    def labels_of(self, y: Any, units: int) -> np.ndarray:
        """Returns float64 targets of shape `(samples, units)`."""
        return y.reshape(-1, units).astype("float64")


TASKS: dict[str, Task] = {
    task.name: task for task in (SingleLabel(), MultiLabel(), Regression())
}
# Losses of Keras that are for one task only: class and function.
_OF_LOSS = {
    "multi_label": {
        "BinaryCrossentropy": "binary_crossentropy",
        "BinaryFocalCrossentropy": "binary_focal_crossentropy",
    },
    "regression": {
        "MeanSquaredError": "mean_squared_error",
        "MeanAbsoluteError": "mean_absolute_error",
        "MeanAbsolutePercentageError": "mean_absolute_percentage_error",
        "MeanSquaredLogarithmicError": "mean_squared_logarithmic_error",
        "Huber": "huber",
        "LogCosh": "log_cosh",
        "CosineSimilarity": "cosine_similarity",
    },
    "single_label": {
        "SparseCategoricalCrossentropy": "sparse_categorical_crossentropy",
        "CategoricalCrossentropy": "categorical_crossentropy",
        "CategoricalFocalCrossentropy": "categorical_focal_crossentropy",
        "CategoricalHinge": "categorical_hinge",
    },
}


def check_task(task: Any) -> str:
    """Returns the name of a task or `"auto"`, or raises if it is unknown."""
    if task != "auto" and task not in TASKS:
        raise ValueError(
            f"`task` must be 'auto' or one of {list(TASKS)}. "
            f"Received: task={task!r}"
        )
    return task


def task_of(loss: Any, given: str) -> Task:
    """Returns the task of a loss, or the given task.

    Args:
        loss: A loss, a function, or the name of a loss.
        given: Name of a task, or `"auto"`.

    Raises:
        ValueError: If both are known and do not agree.
    """
    loss = keras.losses.get(loss)
    while isinstance(loss, functools.partial):
        loss = loss.func
    for name, losses in _OF_LOSS.items():
        for cls, function in losses.items():
            if isinstance(loss, getattr(keras.losses, cls)) or (
                loss is getattr(keras.losses, function)
            ):
                return _agreed(name, given, cls)
    return TASKS["single_label" if given == "auto" else given]


def _agreed(found: str, given: str, loss: str) -> Task:
    # With one-hot labels, a loss of labels or targets also serves classes.
    one_hot = given == "single_label" or (found, given) == (
        "regression",
        "multi_label",
    )
    if given not in ("auto", found) and not one_hot:
        raise ValueError(
            f"The loss {loss} is for the task {found!r}, but the model was "
            f"made with task={given!r}. Make the model with task='auto', or "
            "choose another loss."
        )
    return TASKS[found if given == "auto" else given]


def wants_classes(loss: Any) -> bool:
    """Returns whether a loss is known to take integer classes."""
    return isinstance(loss, keras.losses.SparseCategoricalCrossentropy)


def _numpy(value: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(value))
