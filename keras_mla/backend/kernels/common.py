"""Kernels as Keras computes them."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def batch_norm(
    layer: keras.layers.BatchNormalization, x: Any, training: bool | None
) -> Any:
    """Applies a batch normalization layer, and updates its statistics.

    Args:
        layer: The layer.
        x: Tensor of the layer's rank.
        training: Whether to use the batch's own statistics.

    Returns:
        Tensor of the shape of `x`.
    """
    return layer(x, training=training)


def assign_where(taken: Any | None, variable: Any, value: Any) -> None:
    """Assigns to a variable, if `taken` is `None` or a true bool scalar."""
    if taken is not None:
        value = ops.where(taken, value, variable.value)
    variable.assign(value)


def call(layer: keras.layers.Layer, inputs: Any, training: bool | None) -> Any:
    """Calls a layer."""
    return layer(inputs, training=training)


def zero_unless(condition: Any, values: Any) -> Any:
    """Returns `values` where `condition` is true, else zeros."""
    return ops.where(condition, values, ops.zeros_like(values))


def matrix_vector(matrix: Any, vector: Any) -> Any:
    """Returns `matrix @ vector`."""
    return ops.matmul(matrix, vector)


def subtract_outer(variable: Any, vector: Any, result: Any) -> None:
    """Subtracts `vector vector^T`; a symmetric variable stays symmetric.

    Args:
        variable: Symmetric variable of shape `(features, features)`.
        vector: Tensor of shape `(features,)`.
        result: Tensor that was computed from the variable before.
    """
    variable.assign(variable.value - vector[:, None] * vector)


def deflated_product(matrix: Any, vector: Any, other: Any) -> Any:
    """Returns `(matrix - vector vector^T) @ other`, for symmetric `matrix`."""
    return matrix @ other - vector[:, None] * (vector[None] @ other)


def deflated(matrix: Any, left: Any, right: Any) -> Any:
    """Returns `matrix - left right^T matrix`; it may overwrite `matrix`."""
    return matrix - left[:, None] * (right[None] @ matrix)


def projected_gradient(
    inputs: Any, gradient: Any, P: Any, fewer_rows: bool
) -> Any:
    """Returns `P @ inputs^T @ gradient` in float32, for symmetric `P`.

    Args:
        inputs: Tensor of shape `(batch, features)`.
        gradient: Tensor of shape `(batch, units)`.
        P: float32 tensor of shape `(features, features)`.
        fewer_rows: Whether P multiplies the inputs, which is cheaper where the
            batch is smaller than the number of units.
    """
    inputs = ops.transpose(ops.cast(inputs, "float32"))
    gradient = ops.cast(gradient, "float32")
    if fewer_rows:
        # With P on the right, XLA would first copy a transposed P.
        return (P @ inputs) @ gradient
    return P @ (inputs @ gradient)


def watched(layer: keras.layers.Layer) -> bool:
    """Returns `False`: layers have no hooks on their calls."""
    return False


def vector(scalars: Sequence, dtype: str) -> Any:
    """Returns a tensor of numbers and scalar tensors."""
    return ops.stack([ops.cast(scalar, dtype) for scalar in scalars])


def add_to(variable: Any, value: Any) -> None:
    """Adds to a variable, such as a metric's, in a step."""
    variable.assign_add(value)


def update_metric(
    metric: keras.metrics.Metric, y: Any, logits: Any, weight: Any | None
) -> None:
    """Updates a metric with a batch."""
    metric.update_state(y, logits, weight)


def mean_results(metrics: Sequence) -> Sequence:
    """Returns the results of `keras.metrics.Mean` metrics."""
    return [metric.result() for metric in metrics]


def mean_of_groups(total: Any, count: Any, sizes: Sequence[int]) -> Any:
    """Returns the mean over groups of the sum of each group's means.

    Args:
        total: Variable of shape `(means,)`: the sum behind each mean.
        count: Variable of shape `(means,)`: the number behind each mean. If
            it is 0, the mean is 0.
        sizes: The number of means of each group, one group after the other.
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


def reduced_loss(loss: keras.losses.Loss, y: Any, logits: Any) -> Any:
    """Returns `loss(y, logits)`, the mean over a replica's own rows."""
    return loss(y, logits)


def unscaled(loss: Any) -> Any:
    """Returns a loss that Keras has reduced, over a replica's own rows."""
    return loss


def after(earlier: Any, tensors: Any) -> Any:
    """Returns tensors that are used only once others are computed.

    Args:
        earlier: A structure of tensors.
        tensors: A structure of tensors.
    """
    return tensors


def refuses_labels(logits: Any) -> bool:
    """Returns `False`: a loss may silently take labels out of range."""
    return False


def safe_labels(loss: keras.losses.Loss, labels: Any, logits: Any) -> Any:
    """Returns the labels: a loss may take any of them."""
    return labels
