"""Any number of labels for each sample."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.core.tasks.task import OF_CLASSES, Task, check_metric


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

    def probabilities(self, logits: Any) -> Any:
        """Returns the sigmoid of logits."""
        return ops.sigmoid(logits)

    def metric(self, metric: Any, units: int) -> Any:
        """Replaces the metric `"accuracy"` by one with a threshold of 0."""
        if isinstance(metric, str) and metric.lower() in ("accuracy", "acc"):
            return keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
        check_metric(
            self,
            metric,
            OF_CLASSES,
            "Use a metric with a threshold on logits, such as "
            "`keras.metrics.BinaryAccuracy(threshold=0.0)`, "
            "`Precision(thresholds=0.0)` and `Recall(thresholds=0.0)`.",
        )
        return metric

    def labels_of(self, y: Any, units: int) -> np.ndarray:
        """Returns float64 labels of shape `(samples, units)`."""
        return y.reshape(-1, units).astype("float64")

    def unseen(self, y: np.ndarray, units: int) -> np.ndarray:
        """Returns the labels that no sample has, or that all have."""
        return np.flatnonzero((y.max(axis=0) <= 0) | (y.min(axis=0) >= 1))

    def losses_and_slopes(
        self, logits: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns means over labels of the cross-entropy, and slopes."""
        logits = logits.astype("float64")
        losses = (np.logaddexp(0, logits) - y * logits).mean(axis=1)
        # The logistic function, without an overflow.
        shares = 0.5 * (1 + np.tanh(0.5 * logits))
        return losses, (shares - y) / logits.shape[1]
