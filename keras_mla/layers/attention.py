"""Attention and dense layers in the form that is fastest on each backend."""

from typing import Any

import keras
from keras import layers, ops


def attend(query: Any, key: Any, value: Any, mask: Any = None) -> Any:
    """Computes `softmax(q k^T / sqrt(d)) v` for each head.

    Args:
        query: float tensor `(batch, tokens, heads, d)`.
        key: float tensor `(batch, others, heads, d)`.
        value: float tensor `(batch, others, heads, d)`.
        mask: bool tensor that broadcasts to `(batch, heads, tokens,
            others)`, `False` where no attention may fall.

    Returns:
        A float tensor `(batch, tokens, heads, d)`.
    """
    if _has_fused_attention():
        # On PyTorch, Keras looks for a flash kernel in a way that
        # `torch.compile` cannot trace; PyTorch itself looks for one anyway.
        flash = False if keras.backend.backend() == "torch" else None
        return ops.dot_product_attention(
            query, key, value, mask=mask, flash_attention=flash
        )
    scores = ops.einsum("bqhd,bkhd->bhqk", query * query.shape[-1] ** -0.5, key)
    scores = ops.cast(scores, "float32")
    if mask is not None:
        scores = ops.where(mask, scores, -1e9)
    weights = ops.cast(ops.softmax(scores, axis=-1), value.dtype)
    return ops.einsum("bhqk,bkhd->bqhd", weights, value)


def apply_dense(layer: layers.Dense, tokens: Any) -> Any:
    """Applies a dense layer to tokens as one product of two matrices.

    XLA computes the gradient of a product with two dimensions as it is; with
    three it first copies and transposes what came back from all later blocks,
    a fifth of a training step.

    Args:
        layer: the layer.
        tokens: float tensor `(batch, tokens, width)`.

    Returns:
        A float tensor `(batch, tokens, layer.units)`.
    """
    flat = layer(ops.reshape(tokens, (-1, tokens.shape[-1])))
    return ops.reshape(flat, (-1, ops.shape(tokens)[1], layer.units))


def _has_fused_attention() -> bool:
    """Returns whether Keras's own attention is one kernel here.

    On TensorFlow, and on JAX without an accelerator, two einsums are a fifth
    faster, and JAX's attention cannot compile in float16 on a CPU.
    """
    if keras.backend.backend() == "jax":
        return not keras.distribution.list_devices()[0].startswith("cpu")
    return keras.backend.backend() == "torch"
