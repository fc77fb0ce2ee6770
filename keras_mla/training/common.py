"""What the backends share."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops


def weighted_mean(values: Any, weights: Any | None) -> Any:
    """Mean over the first axis, of the rows that `weights` counts.

    Args:
        values: Tensor of shape `(batch, ...)`.
        weights: `None`, or a bool or float tensor of shape `(batch,)`.

    Returns:
        Tensor of shape `values.shape[1:]`; zeros where nothing is counted.
    """
    if weights is None:
        return ops.mean(values, axis=0)
    total, count = weighted_sum(values, weights)
    return total / ops.maximum(count, 1)


def weighted_sum(values: Any, weights: Any) -> tuple[Any, Any]:
    """Sum of the rows that `weights` counts, and how many these are."""
    weights = ops.cast(weights, values.dtype)
    column = ops.reshape(weights, (-1,) + (1,) * (len(values.shape) - 1))
    # `where`, since an uncounted row may hold NaN.
    rows = ops.where(column > 0, values * column, ops.zeros_like(values))
    return ops.sum(rows, axis=0), ops.sum(weights)


def batch_norm(
    layer: keras.layers.BatchNormalization, x: Any, training: bool | None
) -> Any:
    """What the layer computes, its moving statistics included.

    Args:
        layer: the layer.
        x: Tensor of the layer's rank.
        training: Whether to use the batch's own statistics.

    Returns:
        Tensor of the shape of `x`.
    """
    return layer(x, training=training)


def assign_where(taken: Any | None, variable: Any, value: Any) -> None:
    """Assigns to a variable, where a bool scalar is given if it is true."""
    if taken is not None:
        value = ops.where(taken, value, variable.value)
    variable.assign(value)


def zero_unless(condition: Any, values: Any) -> Any:
    """Returns `values` where `condition` is true, else zeros."""
    return ops.where(condition, values, ops.zeros_like(values))


def subtract_outer(variable: Any, vector: Any) -> None:
    """Subtracts `vector vector^T`; what is symmetric stays so."""
    variable.assign(variable.value - vector[:, None] * vector)


def deflated_product(matrix: Any, vector: Any, other: Any) -> Any:
    """Returns `(matrix - vector vector^T) @ other`, for symmetric `matrix`."""
    return matrix @ other - vector[:, None] * (vector[None] @ other)


def may_be_masked(tensor: Any) -> bool:
    """Whether Keras has, or may have, given the tensor a mask."""
    return getattr(tensor, "_keras_mask", None) is not None


def dense(layer: keras.layers.Dense, x: Any) -> Any:
    """What the layer's `call` computes."""
    return layer.call(x)


def stack(tensors: Sequence) -> Any:
    """Stacks tensors along a new second axis."""
    return ops.stack(tensors, axis=1)


def vector(scalars: Sequence, dtype: str) -> Any:
    """Returns a tensor of numbers and scalar tensors."""
    return ops.stack([ops.cast(scalar, dtype) for scalar in scalars])


def mean_results(metrics: Sequence) -> Sequence:
    """Results of `keras.metrics.Mean` metrics."""
    return [metric.result() for metric in metrics]


def mean_of_groups(total: Any, count: Any, sizes: Sequence[int]) -> Any:
    """Returns the mean over groups of the sum of each one's means.

    Args:
        total: Variable of shape `(means,)`: what each is a mean of, summed.
        count: Variable of shape `(means,)`: of how many. Where it is 0, the
            mean is 0.
        sizes: How many means each group has, one group after the other.
            Groups that count nothing are left out.
    """
    total, count = total.value, count.value
    seen = count > 0
    means = ops.where(seen, total / ops.maximum(count, 1e-12), 0)
    if len(sizes) == sum(sizes):
        groups = ops.sum(ops.cast(seen, means.dtype))
    else:
        starts = [sum(sizes[:group]) for group in range(len(sizes))]
        groups = sum(
            ops.cast(ops.any(seen[start : start + size]), means.dtype)
            for start, size in zip(starts, sizes, strict=True)
        )
    return ops.sum(means) / ops.maximum(groups, 1)


def mean_loss(values: Any) -> Any:
    """Mean of losses of samples, which is that of the whole batch."""
    return ops.mean(values)


def add_to(variable: Any, value: Any) -> None:
    """Adds to a variable, such as a metric's, in a step."""
    variable.assign_add(value)


def refuses_labels() -> bool:
    """No: a loss may take labels that are no classes, in silence."""
    return False


def row_groups() -> int:
    """One: absent rows are filled with any present rows of the batch."""
    return 1


def check_processes() -> None:
    """Does nothing: the backend knows of other processes."""


@contextlib.contextmanager
def keeping_weights(model: keras.Model) -> Iterator[None]:
    """Does nothing: the weights stay in the model while it runs."""
    yield
