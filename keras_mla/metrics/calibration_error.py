from typing import Any

import keras
from keras import ops

from keras_mla.backend import internals


@keras.saving.register_keras_serializable(package="keras_mla")
class ExpectedCalibrationError(keras.metrics.Metric):
    r"""Measures how far a classifier's confidence is from its accuracy.

    Predictions are sorted into bins of equal width by their confidence, the
    probability of the class predicted. With $n_b$ samples, accuracy $a_b$ and
    mean confidence $c_b$ in bin $b$,

    $$\mathrm{ECE} = \sum_b \frac{n_b}{\sum_{b'} n_{b'}} |a_b - c_b|.$$

    Args:
        bins: int. The number of bins. Defaults to `15`.
        name: Name of the metric. Defaults to `"calibration_error"`.
        dtype: Dtype of the metric.

    Call arguments:
        y_true: Classes `(batch,)` or `(batch, 1)`, or one-hot labels
            `(batch, classes)`.
        y_pred: Logits `(batch, classes)`.
        sample_weight: Tensor of shape `(batch,)`, or `None`.

    Raises:
        ValueError: If `bins` is not an int of at least 1.

    Example:
    >>> metric = keras_mla.metrics.ExpectedCalibrationError()
    >>> metric.update_state([0, 1], [[5.0, 5.0], [5.0, 5.0]])
    >>> float(metric.result())  # Half sure, and right half of the time.
    0.0

    Reference:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
        Eq. 3.
    """

    # The task that it says something about.
    tasks = ("single_label",)

    def __init__(
        self,
        bins: int = 15,
        name: str = "calibration_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if not isinstance(bins, int) or bins < 1:
            raise ValueError(
                f"`bins` must be an int of at least 1. Received: bins={bins}"
            )
        internals.say_lower_is_better(self)
        self.bins = bins
        self.count, self.right, self.confidence = (
            self.add_variable((bins,), initializer="zeros", name=part)
            for part in ("count", "right", "confidence")
        )

    def update_state(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> None:
        """Adds a batch."""
        logits = ops.cast(ops.convert_to_tensor(y_pred), "float32")
        y_true = ops.convert_to_tensor(y_true)
        if len(y_true.shape) == 2 and y_true.shape[1] == logits.shape[1]:
            y_true = ops.argmax(y_true, axis=-1)
        y_true = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        confidence = ops.max(ops.softmax(logits, axis=-1), axis=-1)
        right = ops.cast(ops.argmax(logits, axis=-1), "int32") == y_true
        weight = ops.ones_like(confidence)
        if sample_weight is not None:
            weight = ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
        # Bins are closed above: (0, 1/bins], and so on.
        position = ops.cast(ops.ceil(confidence * self.bins), "int32") - 1
        rows = ops.one_hot(ops.clip(position, 0, self.bins - 1), self.bins)
        for variable, values in (
            (self.count, ops.ones_like(confidence)),
            (self.right, ops.cast(right, "float32")),
            (self.confidence, confidence),
        ):
            values = ops.where(weight > 0, values, ops.zeros_like(values))
            added = ops.sum((weight * values)[:, None] * rows, axis=0)
            variable.assign(variable + ops.cast(added, variable.dtype))

    def result(self) -> Any:
        """Returns the error, between 0 and 1."""
        total = ops.maximum(ops.sum(self.count), 1e-12)
        return ops.sum(ops.abs(self.right - self.confidence)) / total

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "bins": self.bins}
