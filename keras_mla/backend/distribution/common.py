"""Distribution where a step sees the global batch, as on one device."""

from typing import Any

from keras import ops


def num_replicas() -> int:
    """Returns 1: a step sees the global batch."""
    return 1


def global_mean(values: Any, weights: Any | None) -> Any:
    """Returns the mean over the batch, of the rows that `weights` counts.

    Args:
        values: Tensor of shape `(batch, ...)`.
        weights: `None`, or a bool tensor of shape `(batch,)`.

    Returns:
        Tensor of shape `values.shape[1:]`; zeros if no row is counted.
    """
    return weighted_mean(values, weights)


def weighted_mean(values: Any, weights: Any | None) -> Any:
    """Returns the mean over the first axis, of the rows that `weights` counts.

    Args:
        values: Tensor of shape `(batch, ...)`.
        weights: `None`, or a bool tensor of shape `(batch,)`.

    Returns:
        Tensor of shape `values.shape[1:]`; zeros if no row is counted.
    """
    if weights is None:
        return ops.mean(values, axis=0)
    total, count = weighted_sum(values, weights)
    return total / ops.maximum(count, 1)


def weighted_sum(values: Any, weights: Any) -> tuple[Any, Any]:
    """Returns the sum of the rows that `weights` counts, and their number."""
    weights = ops.cast(weights, values.dtype)
    column = ops.reshape(weights, (-1,) + (1,) * (len(values.shape) - 1))
    # `where`, because a row that is not counted may hold NaN.
    rows = ops.where(column > 0, values * column, ops.zeros_like(values))
    return ops.sum(rows, axis=0), ops.sum(weights)


def row_groups() -> int:
    """Returns 1: any present row of the batch may fill an absent row."""
    return 1


def check_processes() -> None:
    """Does nothing: the backend itself handles other processes."""
