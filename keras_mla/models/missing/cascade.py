"""Cascades of autoencoders, which four methods impute features with."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

# What a block is given, and what becomes the reconstruction.
RECURRENCES = ("none", "cumulative", "added")


def dense_stack(
    widths: Sequence[int],
    name: str,
    slope: float = 0.0,
    last: bool = True,
    dropout: float = 0.0,
    dtype: Any = None,
) -> keras.Sequential:
    """Returns `Dense` layers, each with an activation, in a row.

    Args:
        widths: Widths of the layers. Without any, the stack returns its input.
        name: Name of the stack.
        slope: float. What a leaky ReLU multiplies negative values with. A
            slope of 0 is a ReLU. Defaults to `0.0`.
        last: bool. Whether the last layer has an activation too. Defaults to
            `True`.
        dropout: float. Rate behind each activation. Defaults to `0.0`.
        dtype: Dtype or policy of the layers.
    """
    stack: list[keras.layers.Layer] = []
    for index, width in enumerate(widths):
        stack.append(layers.Dense(width, dtype=dtype, name=f"dense_{index}"))
        if last or index < len(widths) - 1:
            stack.append(
                layers.LeakyReLU(slope, dtype=dtype, name=f"relu_{index}")
            )
            if dropout:
                stack.append(
                    layers.Dropout(
                        dropout, dtype=dtype, name=f"dropout_{index}"
                    )
                )
    return keras.Sequential(stack or [layers.Identity()], name=name)


@keras.saving.register_keras_serializable(package="keras_mla")
class CascadedAutoencoder(layers.Layer):
    r"""Autoencoders in a row, each of which works on what the last one left.

    Block k has an encoder and a decoder, $l_k = E_k(x_k)$ and
    $o_k = D_k(l_k)$. The residual says what a block is given, with $o_0 = x$,
    and what the layer returns:

    - `"none"`: $x_k = o_{k-1}$; returns $o_K$.
    - `"cumulative"`: $x_k = x + \sum_{j=1}^{k-1} o_j$; returns
      $T(x + \sum_{j=1}^{K} o_j)$.
    - `"added"`: $x_k = o_{k-1} + a$, with a further input $a$; returns
      $T(o_K)$.

    The transition T is a linear map, a ReLU and a linear map, all of the width
    of $x$. Encoders have a leaky ReLU and decoders a ReLU behind each layer
    but the last one.

    Args:
        widths: Sequence of int. Widths of the layers of an encoder; a decoder
            mirrors them. Defaults to `(256, 128, 64)`.
        blocks: int. The number K of blocks. Defaults to `5`.
        residual: `"none"`, `"cumulative"` or `"added"`. Defaults to
            `"cumulative"`.
        slopes: Pair of floats: what the activations of encoders and decoders
            multiply negative values with. Defaults to `(0.01, 0.0)`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: Tensor of shape `(batch, width)`.
        added: Tensor of the same shape, with `residual="added"` alone.

    Returns:
        The reconstruction, `(batch, width)`; and the latents of all blocks
        side by side, `(batch, blocks * widths[-1])`.

    Raises:
        ValueError: If an argument is out of its range, or `added` is missing
            or superfluous.

    Reference:
        Tran et al., "Missing Modalities Imputation via Cascaded Residual
        Autoencoder", CVPR 2017; Zhao et al., "Missing Modality Imagination
        Network for Emotion Recognition with Uncertain Missing Modalities", ACL
        2021 (the transition); Zuo et al., "Exploiting Modality-Invariant
        Feature for Robust Multimodal Emotion Recognition with Missing
        Modalities", ICASSP 2023 (`"added"`).
    """

    def __init__(
        self,
        widths: Sequence[int] = (256, 128, 64),
        blocks: int = 5,
        residual: str = "cumulative",
        slopes: Sequence[float] = (0.01, 0.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not widths or min(widths) < 1 or blocks < 1:
            raise ValueError(
                "There must be at least one block and one width, and widths "
                "must be at least 1. "
                f"Received: widths={list(widths)}, blocks={blocks}"
            )
        if residual not in RECURRENCES:
            raise ValueError(
                f"`residual` must be one of {list(RECURRENCES)}. "
                f"Received: residual={residual!r}"
            )
        self.widths = tuple(widths)
        self.blocks = blocks
        self.residual = residual
        self.slopes = tuple(slopes)

    def build(self, input_shape: tuple) -> None:
        """Builds the blocks and the transition."""
        width = input_shape[-1]
        outward = [*self.widths[-2::-1], width]
        dtype = self.dtype_policy
        leaky, decoding = self.slopes
        self.encoders = [
            dense_stack(
                self.widths, f"encoder_{k}", leaky, last=False, dtype=dtype
            )
            for k in range(self.blocks)
        ]
        self.decoders = [
            dense_stack(
                outward, f"decoder_{k}", decoding, last=False, dtype=dtype
            )
            for k in range(self.blocks)
        ]
        for encoder, decoder in zip(self.encoders, self.decoders, strict=True):
            encoder.build((None, width))
            decoder.build((None, self.widths[-1]))
        if self.residual != "none":
            self.transition = dense_stack(
                (width, width), "transition", last=False, dtype=dtype
            )
            self.transition.build((None, width))

    def call(self, x: Any, added: Any | None = None) -> tuple[Any, Any]:
        """Returns the reconstruction, and the latents of all blocks."""
        if (added is None) == (self.residual == "added"):
            raise ValueError(
                "`added` belongs to `residual='added'`, which needs it. "
                f"Received: residual={self.residual!r}, "
                f"added={'None' if added is None else 'a tensor'}"
            )
        latents = []
        given = x
        for encoder, decoder in zip(self.encoders, self.decoders, strict=True):
            if added is not None:
                given = given + added
            latents.append(encoder(given))
            out = decoder(latents[-1])
            given = given + out if self.residual == "cumulative" else out
        if self.residual != "none":
            given = self.transition(given)
        return given, ops.concatenate(latents, axis=-1)

    def compute_output_shape(self, x_shape: tuple, *args: Any) -> tuple:
        """Returns the shapes of the reconstruction and of the latents."""
        latents = self.blocks * self.widths[-1]
        return tuple(x_shape), (*x_shape[:-1], latents)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "widths": list(self.widths),
            "blocks": self.blocks,
            "residual": self.residual,
            "slopes": list(self.slopes),
        }
