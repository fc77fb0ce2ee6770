"""Chooses, restores and scores the tokens of masked autoencoders."""

from typing import Any

import keras
from keras import ops


def random_noise(tokens: Any, seed: keras.random.SeedGenerator) -> Any:
    """Draws uniform noise `(batch, tokens)`, one number for each token."""
    return keras.random.uniform(ops.shape(tokens)[:2], seed=seed)


def kept_tokens(tokens: int, ratio: float) -> int:
    """Returns how many of `tokens` stay when `ratio` of them is masked."""
    # The slack undoes the rounding of, for instance, 10 * (1 - 0.9) = 0.9999.
    return int(tokens * (1.0 - ratio) + 1e-6)


def choose_tokens(noise: Any, keep: int) -> tuple[Any, Any, Any]:
    """Chooses the `keep` tokens of each sample whose noise is smallest.

    Args:
        noise: float tensor `(batch, tokens)`.
        keep: int. Tokens that stay.

    Returns:
        The int indices `(batch, keep)` of the kept tokens; the mask
        `(batch, tokens)`, float32, `1.0` where a token is removed; and the int
        indices `(batch, tokens)` that put kept and removed tokens, one after
        the other, back in order.
    """
    order = ops.argsort(noise, axis=1)
    restore = ops.argsort(order, axis=1)
    return order[:, :keep], ops.cast(restore >= keep, "float32"), restore


def take_tokens(tokens: Any, chosen: Any) -> Any:
    """Returns the chosen tokens of each sample.

    Args:
        tokens: float tensor `(batch, tokens, width)`.
        chosen: int tensor `(batch, keep)`.

    Returns:
        A tensor `(batch, keep, width)`.
    """
    return ops.take_along_axis(tokens, chosen[:, :, None], axis=1)


def restore_tokens(kept: Any, filler: Any, restore: Any) -> Any:
    """Puts kept tokens back in their places, the filler in all others.

    Args:
        kept: float tensor `(batch, keep, width)`.
        filler: float tensor `(1, 1, width)`.
        restore: int tensor `(batch, tokens)`, from `choose_tokens`.

    Returns:
        A float tensor `(batch, tokens, width)`.
    """
    # A removed token has an index of `keep` or more: one filler serves all.
    keep, width = kept.shape[1:]
    filler = ops.broadcast_to(
        ops.cast(filler, kept.dtype), (ops.shape(kept)[0], 1, width)
    )
    places = ops.minimum(restore, keep)[:, :, None]
    return ops.take_along_axis(
        ops.concatenate([kept, filler], axis=1), places, axis=1
    )


def masked_mean(values: Any, mask: Any) -> Any:
    """Averages over a sample's masked tokens, then over the batch.

    Args:
        values: float tensor `(batch, tokens)`.
        mask: float tensor `(batch, tokens)`, zero at tokens to leave out.

    Returns:
        A scalar; a sample without a masked token counts as zero.
    """
    values = ops.where(mask > 0, values, 0.0)
    count = ops.maximum(ops.sum(mask, axis=1), 1e-5)
    return ops.mean(ops.sum(values, axis=1) / count)


def reconstruction_loss(predicted: Any, target: Any, mask: Any) -> Any:
    """Returns the mean squared error of the masked patches.

    Args:
        predicted: float tensor `(batch, patches, values)`.
        target: float32 tensor of that shape.
        mask: float tensor `(batch, patches)`, `1.0` at masked patches.

    Returns:
        A scalar.
    """
    error = ops.square(ops.cast(predicted, "float32") - target)
    return masked_mean(ops.mean(error, axis=-1), mask)
