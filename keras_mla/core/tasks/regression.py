"""Numbers for each sample."""

from typing import Any

import numpy as np
from keras import ops

from keras_mla.core.tasks.task import (
    OF_CLASSES,
    OF_LABELS,
    Task,
    check_metric,
)


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

    def log_likelihood(self, labels: Any, logits: Any) -> Any:
        """Returns the mean log-density over outputs, Gaussian of variance 1.

        The constant is left out: it is minus half the mean squared error.
        """
        labels = ops.reshape(ops.cast(labels, "float32"), ops.shape(logits))
        errors = ops.square(ops.cast(logits, "float32") - labels)
        return -0.5 * ops.mean(errors, axis=-1)

    def metric(self, metric: Any, units: int) -> Any:
        """Returns the metric, or raises if it is for classes or labels."""
        check_metric(
            self,
            metric,
            OF_CLASSES | OF_LABELS,
            "Use a metric such as `keras.metrics.MeanAbsoluteError()` or "
            "`keras.metrics.R2Score()`.",
        )
        return metric

    def labels_of(self, y: Any, units: int) -> np.ndarray:
        """Returns float64 targets of shape `(samples, units)`."""
        return y.reshape(-1, units).astype("float64")

    def losses_and_slopes(
        self, logits: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns half the mean squared errors, and slopes."""
        errors = logits.astype("float64") - y
        losses = 0.5 * (errors**2).mean(axis=1)
        return losses, errors / logits.shape[1]
