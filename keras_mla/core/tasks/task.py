"""The base class of tasks."""

from typing import Any

import keras
import numpy as np
from keras import ops

UNLABELLED = (
    "Samples without a label can be given a `sample_weight` of 0, or a class "
    "that the loss ignores (`SparseCategoricalCrossentropy(ignore_class=-1)`)."
)


# Metrics of Keras, in lower case and without underscores, for one class of
# several, and for labels as well as classes.
OF_CLASSES = frozenset(
    "f1score fbetascore categoricalaccuracy sparsecategoricalaccuracy "
    "topkcategoricalaccuracy sparsetopkcategoricalaccuracy "
    "categoricalcrossentropy sparsecategoricalcrossentropy "
    "categoricalhinge".split()
)
OF_LABELS = frozenset(
    "accuracy acc binaryaccuracy auc precision recall precisionatrecall "
    "recallatprecision sensitivityatspecificity specificityatsensitivity "
    "truepositives truenegatives falsepositives falsenegatives "
    "binarycrossentropy hinge squaredhinge iou binaryiou meaniou onehotiou "
    "onehotmeaniou".split()
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
        """Raises unless the head has enough units.

        Args:
            units: int. Number of logits.
        """

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

        Raises:
            ValueError: If a sample that counts has a label that cannot be
                right.
        """
        labels = to_numpy(y)
        given = [
            to_numpy(v) for v in (sample_weight, presence) if v is not None
        ]
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
            weight = to_numpy(sample_weight)
            stray &= weight.reshape(len(labels), -1).any(axis=1)
        if presence is not None:
            stray &= to_numpy(presence).astype(bool).any(axis=1)
        if stray.any():
            raise ValueError(
                f"Labels{where} {self.rule(units)} Received: "
                f"{int(stray.sum())} samples with other labels, among them "
                f"{labels[stray][0]}"
            )

    def strays(self, labels: np.ndarray, units: int, loss: Any) -> Any:
        """Returns which rows hold impossible labels; `None` if unchecked.

        Args:
            labels: array of labels, a row for each sample.
            units: int. Number of logits.
            loss: The compiled loss.
        """
        return None

    def rule(self, units: int) -> str:
        """Returns the end of a sentence that begins with "Labels".

        Args:
            units: int. Number of logits.
        """
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

    def probabilities(self, logits: Any) -> Any | None:
        """Returns probabilities `(batch, units)`, if the task has any.

        Args:
            logits: Tensor of shape `(batch, units)`.
        """
        return None

    def metric(self, metric: Any, units: int) -> Any:
        """Returns the metric to compile in place of the given metric.

        Args:
            metric: A metric, a function, or the name of either.
            units: int. Number of logits.
        """
        return metric

    def labels_of(self, y: Any, units: int) -> np.ndarray:
        """Returns NumPy labels as `losses` takes them.

        Args:
            y: array of labels, a row for each sample, as `fit` takes them.
            units: int. Number of logits.
        """
        raise NotImplementedError

    def unseen(self, y: np.ndarray, units: int) -> np.ndarray:
        """Returns the classes that labels lack. Defaults to none.

        Args:
            y: Labels, as `labels_of` returns them.
            units: int. Number of logits.
        """
        return np.array([], int)

    def losses(self, logits: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns each sample's negative log-likelihood, by NumPy in float64.

        Args:
            logits: array `(samples, units)`.
            y: Labels, as `labels_of` returns them.
        """
        return self.losses_and_slopes(logits, y)[0]

    def losses_and_slopes(
        self, logits: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns `losses`, and their derivatives after logits.

        Args:
            logits: array `(samples, units)`.
            y: Labels, as `labels_of` returns them.
        """
        raise NotImplementedError

    def negative_log_likelihood(
        self, logits: np.ndarray, y: np.ndarray, weight: np.ndarray
    ) -> float:
        """Returns the weighted mean of `losses`.

        Args:
            logits: array `(samples, units)`.
            y: Labels, as `labels_of` returns them.
            weight: array `(samples,)`. The weight of each sample.
        """
        return float(np.average(self.losses(logits, y), weights=weight))


def check_metric(
    task: Task, metric: Any, refused: frozenset[str], advice: str
) -> None:
    """Raises if a metric of Keras, or one that names its tasks, does not fit.

    Args:
        task: The task.
        metric: A metric, a function, or the name of either.
        refused: Names of Keras's metrics, as in `OF_CLASSES`.
        advice: What to use instead.
    """
    own = getattr(metric, "tasks", (task.name,))
    name = _name_in_keras(metric)
    if task.name not in own or name.lower().replace("_", "") in refused:
        shown = name or type(metric).__name__
        raise ValueError(
            f"The metric {shown!r} says nothing about the task {task.name!r}. "
            f"{advice} Received: {metric}"
        )


def _name_in_keras(metric: Any) -> str:
    """Returns the name of a metric of Keras, and `""` of any other metric."""
    if isinstance(metric, str):
        return metric
    name = getattr(metric, "__name__", type(metric).__name__)
    of_keras = getattr(keras.metrics, name, None)
    return name if metric is of_keras or type(metric) is of_keras else ""


def to_numpy(value: Any) -> np.ndarray:
    """Returns a tensor or an array as a NumPy array."""
    return np.asarray(ops.convert_to_numpy(value))


def wants_classes(loss: Any) -> bool:
    """Returns whether a loss is known to take integer classes."""
    return isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
