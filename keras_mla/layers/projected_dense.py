"""A Dense layer whose kernel's gradient is projected as it is computed."""

from typing import Any

import keras
from keras import ops

from keras_mla.backend import internals, kernels
from keras_mla.layers.gradient_projector import GradientProjector


def can_project(
    dense: keras.layers.Dense, projector: GradientProjector
) -> bool:
    """Returns whether `call` computes what the layer itself does.

    Where the loss depends on the kernel in another way, as a regulariser does,
    P times that gradient takes as long as P times the whole gradient.
    """
    return (
        projector.supports_products
        and type(dense) is keras.layers.Dense
        and dense.autocast
        and dense.quantization_mode is None
        and not dense.lora_enabled
        and dense.kernel_regularizer is None
        and dense.activity_regularizer is None
        and not kernels.watched(dense)
    )


def call(
    dense: keras.layers.Dense, projector: GradientProjector, inputs: Any
) -> Any:
    """Calls a built layer, so that P multiplies the gradient of its kernel.

    The gradient for `GradientProjector.project` is then one with
    `projected=True`.

    Args:
        dense: A layer that `can_project` accepts.
        projector: The built projector of the layer's kernel.
        inputs: Tensor of shape `(batch, features)`.

    Returns:
        Tensor of shape `(batch, units)`.
    """
    outputs = projector.product(
        ops.cast(inputs, dense.compute_dtype), dense.kernel
    )
    if dense.bias is not None:
        outputs = outputs + ops.cast(dense.bias, outputs.dtype)
    if dense.activation is not None:
        outputs = dense.activation(outputs)
    internals.copy_mask(inputs, outputs)
    return outputs
