"""Kernels on PyTorch, where steps run eagerly: fewer and larger operations."""

from collections.abc import Sequence
from typing import Any

import keras
import torch

from keras_mla.backend.kernels import common


def batch_norm(
    layer: keras.layers.BatchNormalization, x: Any, training: bool | None
) -> Any:
    """What the layer computes, by PyTorch's own kernel.

    Keras composes batch normalization of single operations, each a pass over
    the data: a third of a training step of ResNet-18.

    Args:
        layer: the layer, over the second axis.
        x: Tensor of shape `(batch, channels, ...)`.
        training: Whether to use the batch's own statistics.

    Returns:
        Tensor of the shape of `x`.
    """
    channels = x.shape[1]
    count = x.numel() // channels
    training = bool(training and layer.trainable)
    if training and count == 1:
        # PyTorch refuses a single value, Keras normalizes it to zero.
        return common.batch_norm(layer, x, training)
    mean, variance = layer.moving_mean, layer.moving_variance
    # In training the kernel gives the batch's statistics: with a momentum of
    # one, they take the place of the moving ones.
    given = [v.value.clone() if training else v.value for v in (mean, variance)]
    y = torch.nn.functional.batch_norm(
        x,
        *given,
        layer.gamma.value,
        layer.beta.value,
        training=training,
        momentum=1.0,
        eps=layer.epsilon,
    )
    if training:
        # Keras keeps the biased variance.
        given[1] = given[1] * ((count - 1) / count)
        for variable, new in zip((mean, variance), given, strict=True):
            old = variable.value * layer.momentum
            variable.assign(old + new * (1.0 - layer.momentum))
    return y


def matrix_vector(matrix: Any, vector: Any) -> Any:
    """Returns `matrix @ vector`, in full float32 on a GPU too."""
    return torch.mv(matrix, vector)


# Where a `torch.nn.Module` keeps what users register on it.
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def call(layer: keras.layers.Layer, inputs: Any, training: bool | None) -> Any:
    """Calls a layer; a built `keras.Sequential` layer by layer.

    The result is the same, without the time that Keras takes for each level
    of nesting. Inputs of another rank or dtype than declared go through the
    Sequential, which adapts them, and so do all where a hook waits for it.
    """
    if (
        type(layer) is not keras.Sequential
        or not layer.built
        or not _as_declared(layer, inputs)
        or any(getattr(layer, hooks, None) for hooks in _HOOKS)
    ):
        return layer(inputs, training=training)
    for part in layer.layers:
        inputs = call(part, inputs, training)
    return inputs


def _as_declared(layer: keras.Sequential, inputs: Any) -> bool:
    if not layer.inputs:
        return True
    (declared,) = layer.inputs
    return torch.is_tensor(inputs) and (
        len(inputs.shape) == len(declared.shape)
        and keras.backend.standardize_dtype(inputs.dtype) == declared.dtype
    )


def zero_unless(condition: Any, values: Any) -> Any:
    """Returns `values` where `condition` is true, else zeros."""
    # Zero as a number: as a tensor it would be copied to a GPU at each step.
    return torch.where(keras.ops.convert_to_tensor(condition), values, 0.0)


@torch.no_grad()
def subtract_outer(variable: Any, vector: Any) -> None:
    """Subtracts `vector vector^T`, in place and in one pass."""
    variable.value.addr_(vector, vector, alpha=-1)


def deflated_product(matrix: Any, vector: Any, other: Any) -> Any:
    """Returns `(matrix - vector vector^T) @ other`, for symmetric `matrix`.

    From the right, since with few columns PyTorch's kernel takes half the time
    for it (and XLA's takes longer). Contiguous, which optimizers are fast with.
    """
    product = other.T @ matrix
    return product.addr_(vector @ other, vector, alpha=-1).T.contiguous()


def vector(scalars: Sequence, dtype: str) -> Any:
    """Returns a tensor of numbers and scalar tensors."""
    wanted = getattr(torch, dtype)
    if all(torch.is_tensor(s) and s.dtype == wanted for s in scalars):
        return torch.stack(tuple(scalars))
    return common.vector(scalars, dtype)


def add_to(variable: Any, value: Any) -> None:
    """Adds to a variable, such as a metric's, in a step: in place."""
    variable.value.detach().add_(value)


def update_metric(
    metric: keras.metrics.Metric, y: Any, logits: Any, weight: Any | None
) -> None:
    """Updates a metric; one that is a plain mean without Keras's detours.

    Keras's metrics weigh, mask and reduce whatever they are given. For a mean
    over samples, which most metrics are, that takes longer than the mean.
    """
    if (
        weight is not None
        or type(metric).update_state
        is not keras.metrics.MeanMetricWrapper.update_state
        or _masked(logits)
    ):
        metric.update_state(y, logits, weight)
        return
    values = metric._fn(y, logits, **metric._fn_kwargs)
    values = keras.ops.cast(values, metric.dtype)
    if len(values.shape) == 1:
        add_to(metric.total, values.sum())
        add_to(metric.count, values.shape[0])
    else:
        keras.metrics.Mean.update_state(metric, values)


def mean_results(metrics: Sequence) -> Sequence:
    """Results of `keras.metrics.Mean` metrics, of all at once."""
    totals = torch.stack([metric.total.value for metric in metrics])
    counts = torch.stack([metric.count.value for metric in metrics])
    return torch.where(counts == 0, 0.0, totals / counts).unbind()


def mean_of_groups(total: Any, count: Any, sizes: Sequence[int]) -> Any:
    """Returns the mean over groups of the sum of each one's means."""
    if len(sizes) != sum(sizes):
        return common.mean_of_groups(total, count, sizes)
    seen = count.value > 0
    means = torch.where(seen, total.value / count.value, 0.0)
    return means.sum() / seen.sum().clamp(min=1)


def reduced_loss(loss: keras.losses.Loss, y: Any, logits: Any) -> Any:
    """Returns `loss(y, logits)` by less than Keras does for it."""
    values = loss.call(
        keras.ops.convert_to_tensor(y, loss.dtype),
        keras.ops.convert_to_tensor(logits, loss.dtype),
    )
    if _masked(logits) or _masked(values):
        return loss(y, logits)  # A mean over some of the samples.
    return values.mean()


def refuses_labels() -> bool:
    """Yes: PyTorch's cross-entropy raises an error for what is no class."""
    return True


def _masked(tensor: Any) -> bool:
    return getattr(tensor, "_keras_mask", None) is not None
