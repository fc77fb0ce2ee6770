"""The probability that a prediction gives to the right class."""

from typing import Any

from keras import ops


def log_likelihood(labels: Any, logits: Any) -> Any:
    """Returns each sample's log-probability of its label.

    Args:
        labels: Classes `(batch,)` or `(batch, 1)`, or one-hot labels or
            probabilities `(batch, classes)`.
        logits: Tensor of shape `(batch, classes)`.

    Returns:
        float32 tensor of shape `(batch,)`.
    """
    classes = logits.shape[-1]
    if len(labels.shape) != 2 or labels.shape[1] != classes:
        labels = ops.one_hot(
            ops.cast(ops.reshape(labels, (-1,)), "int32"), classes
        )
    log_p = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    return ops.sum(ops.cast(labels, "float32") * log_p, axis=-1)
