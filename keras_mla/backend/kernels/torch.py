"""Kernels on PyTorch: fewer and larger operations, as steps run eagerly."""

from collections.abc import Sequence
from typing import Any

import keras
import torch

from keras_mla.backend.kernels import common


def batch_norm(
    layer: keras.layers.BatchNormalization, x: Any, training: bool | None
) -> Any:
    """Applies a batch normalization layer by PyTorch's own kernel.

    Keras composes batch normalization from single operations, each a pass over
    the data. They take a third of a training step of ResNet-18.

    Args:
        layer: The layer, over the second axis.
        x: Tensor of shape `(batch, channels, ...)`.
        training: Whether to use the batch's own statistics.

    Returns:
        Tensor of the shape of `x`.
    """
    channels = x.shape[1]
    count = x.numel() // channels
    training = bool(training and layer.trainable)
    if training and count == 1:
        # PyTorch refuses a single value; Keras normalizes it to zero.
        return common.batch_norm(layer, x, training)
    mean, variance = layer.moving_mean, layer.moving_variance
    # In training, a momentum of one makes the kernel overwrite the given
    # statistics with the batch's.
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


# Attributes in which a `torch.nn.Module` keeps the hooks of its users.
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def call(layer: keras.layers.Layer, inputs: Any, training: bool | None) -> Any:
    """Calls a layer, and a built `keras.Sequential` layer by layer.

    The result is the same, and saves the time that Keras takes for each level
    of nesting. The Sequential itself is called if it has hooks, or if inputs
    have another rank or dtype than declared, because it adapts them.
    """
    if (
        type(layer) is not keras.Sequential
        or not layer.built
        or not _as_declared(layer, inputs)
        or watched(layer)
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
    # Zero as a number: a tensor would be copied to a GPU at each step.
    return torch.where(keras.ops.convert_to_tensor(condition), values, 0.0)


@torch.no_grad()
def subtract_outer(variable: Any, vector: Any, result: Any) -> None:
    """Subtracts `vector vector^T` in place and in one pass."""
    variable.value.addr_(vector, vector, alpha=-1)


def deflated_product(matrix: Any, vector: Any, other: Any) -> Any:
    """Returns `(matrix - vector vector^T) @ other`, for symmetric `matrix`.

    The product is taken from the right: with few columns PyTorch's kernel then
    takes half the time (and XLA's takes longer). The result is contiguous,
    because optimizers are faster with it.
    """
    product = other.T @ matrix
    return product.addr_(vector @ other, vector, alpha=-1).T.contiguous()


def deflated(matrix: Any, left: Any, right: Any) -> Any:
    """Returns `matrix - left right^T matrix`, in the memory of `matrix`.

    New memory takes PyTorch five times as long to fill, if there is much.
    """
    return matrix.addmm_(left[:, None], (right @ matrix)[None], alpha=-1)


class _ProjectedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Any, kernel: Any, P: Any) -> Any:
        ctx.save_for_backward(inputs, kernel, P)
        return inputs @ kernel.to(inputs.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Any) -> tuple:
        inputs, kernel, P = ctx.saved_tensors
        of_inputs = of_kernel = None
        if ctx.needs_input_grad[0]:
            of_inputs = gradient @ kernel.to(gradient.dtype).T
        if ctx.needs_input_grad[1]:
            of_kernel = _projected_gradient(inputs.float(), gradient.float(), P)
            of_kernel = of_kernel.to(kernel.dtype)
        return of_inputs, of_kernel, None


def _projected_gradient(inputs: Any, gradient: Any, P: Any) -> Any:
    if inputs.shape[0] < gradient.shape[1]:
        return (inputs @ P).T @ gradient
    # From the right, as in `deflated_product`.
    return ((gradient.T @ inputs) @ P).T.contiguous()


def projected_product(inputs: Any, kernel: Any, P: Any) -> Any:
    """Returns `inputs @ kernel`; P multiplies the gradient of the kernel.

    Args:
        inputs: Tensor of shape `(batch, features)`.
        kernel: Tensor of shape `(features, units)`, multiplied in the dtype of
            `inputs`.
        P: float32 tensor of shape `(features, features)`, symmetric. It gets
            no gradient.
    """
    return _ProjectedProduct.apply(inputs, kernel, P)


def watched(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer has hooks on its calls."""
    return any(getattr(layer, hooks, None) for hooks in _HOOKS)


def vector(scalars: Sequence, dtype: str) -> Any:
    """Returns a tensor of numbers and scalar tensors."""
    wanted = getattr(torch, dtype)
    if all(torch.is_tensor(s) and s.dtype == wanted for s in scalars):
        return torch.stack(tuple(scalars))
    return common.vector(scalars, dtype)


def add_to(variable: Any, value: Any) -> None:
    """Adds in place to a variable, such as a metric's, in a step."""
    variable.value.detach().add_(value)


def update_metric(
    metric: keras.metrics.Metric, y: Any, logits: Any, weight: Any | None
) -> None:
    """Updates a metric with a batch, faster if it is a plain mean.

    Keras's metrics weight, mask and reduce all values. For a mean over
    samples, as most metrics are, this takes longer than the mean itself.
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
    """Returns the results of `keras.metrics.Mean` metrics, computed at once."""
    totals = torch.stack([metric.total.value for metric in metrics])
    counts = torch.stack([metric.count.value for metric in metrics])
    return torch.where(counts == 0, 0.0, totals / counts).unbind()


def mean_of_groups(total: Any, count: Any, sizes: Sequence[int]) -> Any:
    """Returns the mean over groups of the sum of each group's means."""
    if len(sizes) != sum(sizes):
        return common.mean_of_groups(total, count, sizes)
    seen = count.value > 0
    means = torch.where(seen, total.value / count.value, 0.0)
    return means.sum() / seen.sum().clamp(min=1)


def reduced_loss(loss: keras.losses.Loss, y: Any, logits: Any) -> Any:
    """Returns `loss(y, logits)`, with less work than Keras does."""
    values = loss.call(
        keras.ops.convert_to_tensor(y, loss.dtype),
        keras.ops.convert_to_tensor(logits, loss.dtype),
    )
    if _masked(logits) or _masked(values):
        return loss(y, logits)  # Keras leaves masked samples out.
    return values.mean()


def refuses_labels(logits: Any) -> bool:
    """Returns whether cross-entropy raises for labels out of range.

    On a GPU it ends the use of the GPU in the whole process (a failed assertion
    of the device), which `safe_labels` prevents.
    """
    return logits.device.type == "cpu"


def safe_labels(loss: keras.losses.Loss, labels: Any, logits: Any) -> Any:
    """Returns labels without those that PyTorch does not survive on a GPU."""
    if refuses_labels(logits) or not isinstance(
        loss, keras.losses.SparseCategoricalCrossentropy
    ):
        return labels
    labels = keras.ops.convert_to_tensor(labels)
    safe = labels.clamp(0, logits.shape[-1] - 1)
    if loss.ignore_class is not None:
        safe = torch.where(labels == loss.ignore_class, labels, safe)
    return safe


def _masked(tensor: Any) -> bool:
    return getattr(tensor, "_keras_mask", None) is not None
