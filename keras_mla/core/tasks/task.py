"""The base class of tasks."""

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


def to_numpy(value: Any) -> np.ndarray:
    """Returns a tensor or an array as a NumPy array."""
    return np.asarray(ops.convert_to_numpy(value))


def wants_classes(loss: Any) -> bool:
    """Returns whether a loss is known to take integer classes."""
    return isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
