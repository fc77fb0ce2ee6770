"""The transformer block of M3AE, CAV-MAE and `TransformerFusion`."""

from typing import Any

import keras
from keras import layers, ops

from keras_mla.layers.attention import apply_dense, attend


@keras.saving.register_keras_serializable(package="keras_mla")
class TransformerBlock(layers.Layer):
    """A pre-norm transformer block, with as many sets of norms as wanted.

    `x = x + attention(norm1(x))`, then `x = x + mlp(norm2(x))`, with a fused
    query-key-value projection and a GELU between the two layers of the
    perceptron. A block that several modalities share may keep layer norms of
    its own for each of them: every name in `norms` makes one pair, and the
    call says which pair to use.

    Args:
        num_heads: int. Attention heads; must divide the width of the input.
        mlp_ratio: int. Width of the hidden layer over that of the input.
            Defaults to `4`.
        norms: sequence of str. Names of the pairs of layer norms. Defaults to
            `("",)`, a single pair.
        approximate_gelu: bool. Whether GELU is approximated by a tanh, as Flax
            does unless told otherwise. Defaults to `False`.
        epsilon: float. Epsilon of the layer norms. Defaults to `1e-5`.
        dropout: float. Rate after the attention and in the perceptron.
            Defaults to `0.0`.
        drop_path: float. Rate at which a sample skips a residual branch.
            Defaults to `0.0`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: float tensor `(batch, tokens, width)`.
        padding_mask: bool tensor `(batch, tokens)`, `True` at the
            tokens that may be attended to.
        norm: str. The name of the pair of norms to use. Defaults to the first.
        training: bool. Whether to apply dropout and drop path.

    Returns:
        A float tensor `(batch, tokens, width)`.

    Raises:
        ValueError: If `num_heads` does not divide the width, or `norm` is not
            one of `norms`.

    Example:
    >>> block = keras_mla.encoders.TransformerBlock(num_heads=4)
    >>> tuple(block(np.zeros((2, 10, 32), "float32")).shape)
    (2, 10, 32)

    Reference:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, Eqs.
        2-3.
    """

    def __init__(
        self,
        num_heads: int,
        mlp_ratio: int = 4,
        norms: tuple[str, ...] = ("",),
        approximate_gelu: bool = False,
        epsilon: float = 1e-5,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.norms = tuple(norms)
        self.approximate_gelu = approximate_gelu
        self.epsilon = epsilon
        self.dropout = dropout
        self.drop_path = drop_path
        if not self.norms:
            raise ValueError(
                "A transformer block needs at least one pair of norms. "
                f"Received: norms={norms}"
            )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the sublayers for tokens of the width of `input_shape`."""
        width = int(input_shape[-1] or 0)
        if width % self.num_heads:
            raise ValueError(
                "The number of heads must divide the width of the tokens. "
                f"Received: num_heads={self.num_heads}, width={width}"
            )
        hidden = width * self.mlp_ratio
        dtype = self.dtype_policy

        def norm(name: str) -> layers.LayerNormalization:
            return layers.LayerNormalization(
                epsilon=self.epsilon, dtype=dtype, name=name
            )

        suffixes = [f"_{name}" if name else "" for name in self.norms]
        self.norm1 = [norm(f"norm1{suffix}") for suffix in suffixes]
        self.norm2 = [norm(f"norm2{suffix}") for suffix in suffixes]
        self.qkv = layers.Dense(3 * width, dtype=dtype, name="qkv")
        self.projection = layers.Dense(width, dtype=dtype, name="projection")
        self.mlp_in = layers.Dense(hidden, dtype=dtype, name="mlp_in")
        self.mlp_out = layers.Dense(width, dtype=dtype, name="mlp_out")
        for layer in [*self.norm1, *self.norm2, self.qkv, self.mlp_in]:
            layer.build(input_shape)
        self.projection.build(input_shape)
        self.mlp_out.build((*input_shape[:-1], hidden))
        # Dropping a whole residual branch of a sample is dropout with one
        # draw for all of its tokens and features.
        self.drop = layers.Dropout(self.dropout, dtype=dtype)
        self.skip = layers.Dropout(
            self.drop_path, noise_shape=(None, 1, 1), dtype=dtype
        )

    def call(
        self,
        inputs: Any,
        padding_mask: Any = None,
        norm: str | None = None,
        training: bool | None = None,
    ) -> Any:
        """Applies attention and perceptron, each with its residual."""
        if norm is not None and norm not in self.norms:
            raise ValueError(
                f"This block has the norms {self.norms}. Received: norm={norm}"
            )
        pair = 0 if norm is None else self.norms.index(norm)
        x = self._attend(self.norm1[pair](inputs), padding_mask)
        inputs = inputs + self._regularise(x, training)
        x = apply_dense(self.mlp_in, self.norm2[pair](inputs))
        x = ops.gelu(x, approximate=self.approximate_gelu)
        if self.dropout:
            x = self.drop(x, training=training)
        x = apply_dense(self.mlp_out, x)
        return inputs + self._regularise(x, training)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Returns the shape of the inputs, which does not change."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "norms": self.norms,
            "approximate_gelu": self.approximate_gelu,
            "epsilon": self.epsilon,
            "dropout": self.dropout,
            "drop_path": self.drop_path,
        }

    def _attend(self, x: Any, mask: Any) -> Any:
        tokens, width = ops.shape(x)[1], x.shape[-1]
        head = width // self.num_heads
        qkv = apply_dense(self.qkv, x)
        qkv = ops.reshape(qkv, (-1, tokens, 3, self.num_heads, head))
        if mask is not None:
            mask = ops.cast(mask, "bool")[:, None, None, :]
        if x.shape[1] == 1:
            # A single token attends to itself, whatever the scores are.
            x = qkv[:, :, 2]
        else:
            x = attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], mask)
        x = ops.reshape(x, (-1, tokens, width))
        return apply_dense(self.projection, x)

    def _regularise(self, x: Any, training: bool | None) -> Any:
        if self.dropout:
            x = self.drop(x, training=training)
        return self.skip(x, training=training) if self.drop_path else x


@keras.saving.register_keras_serializable(package="keras_mla")
class Transformer(layers.Layer):
    """A stack of `TransformerBlock`s and a layer norm after the last.

    Args:
        depth: int. Number of blocks.
        num_heads: int. Attention heads of each block.
        final_norm: bool. Whether a layer norm follows. Defaults to `True`.
        mlp_ratio: int. As in `TransformerBlock`. Defaults to `4`.
        approximate_gelu: bool. As in `TransformerBlock`. Defaults to `False`.
        epsilon: float. As in `TransformerBlock`. Defaults to `1e-5`.
        dropout: float. As in `TransformerBlock`. Defaults to `0.0`.
        drop_path: float. Rate of the last block; the rates grow linearly from
            zero with depth. Defaults to `0.0`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: float tensor `(batch, tokens, width)`.
        padding_mask: bool tensor `(batch, tokens)`, `True` at tokens.
        training: bool. Whether layers behave as in training.

    Returns:
        A float tensor `(batch, tokens, width)`.

    Raises:
        ValueError: If `num_heads` does not divide the width.

    Example:
    >>> transformer = keras_mla.encoders.Transformer(depth=2, num_heads=4)
    >>> tuple(transformer(np.zeros((2, 10, 32), "float32")).shape)
    (2, 10, 32)

    Reference:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.
    """

    def __init__(
        self,
        depth: int,
        num_heads: int,
        final_norm: bool = True,
        mlp_ratio: int = 4,
        approximate_gelu: bool = False,
        epsilon: float = 1e-5,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.depth = depth
        self.num_heads = num_heads
        self.final_norm = final_norm
        self.mlp_ratio = mlp_ratio
        self.approximate_gelu = approximate_gelu
        self.epsilon = epsilon
        self.dropout = dropout
        self.drop_path = drop_path
        self.blocks = [
            TransformerBlock(
                num_heads,
                mlp_ratio=mlp_ratio,
                approximate_gelu=approximate_gelu,
                epsilon=epsilon,
                dropout=dropout,
                drop_path=drop_path * i / max(depth - 1, 1),
                dtype=self.dtype_policy,
                name=f"block_{i}",
            )
            for i in range(depth)
        ]
        if final_norm:
            self.norm = layers.LayerNormalization(
                epsilon=epsilon, dtype=self.dtype_policy, name="norm"
            )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds the blocks."""
        for block in self.blocks:
            block.build(input_shape)
        if self.final_norm:
            self.norm.build(input_shape)

    def call(
        self,
        inputs: Any,
        padding_mask: Any = None,
        training: bool | None = None,
    ) -> Any:
        """Applies the blocks in order."""
        for block in self.blocks:
            inputs = block(inputs, padding_mask=padding_mask, training=training)
        return self.norm(inputs) if self.final_norm else inputs

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Returns the shape of the inputs, which does not change."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "depth": self.depth,
            "num_heads": self.num_heads,
            "final_norm": self.final_norm,
            "mlp_ratio": self.mlp_ratio,
            "approximate_gelu": self.approximate_gelu,
            "epsilon": self.epsilon,
            "dropout": self.dropout,
            "drop_path": self.drop_path,
        }
