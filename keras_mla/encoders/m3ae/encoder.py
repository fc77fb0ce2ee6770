"""M3AE's transformer as the encoder of one modality, image or text."""

from typing import Any

import keras
from keras import ops

from keras_mla.encoders.nn.embeddings import PatchEmbedding, TextEmbedding
from keras_mla.encoders.nn.tokens import (
    check_image,
    check_patches,
    check_pooling,
)
from keras_mla.layers.transformer import Transformer

# Width, depth and heads of the published configurations.
SIZES = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}


def transformer_size(
    size: str, width: int | None, depth: int | None, num_heads: int | None
) -> tuple[int, int, int]:
    """Returns width, depth and heads of a size, or the given ones instead.

    Args:
        size: str. `"small"`, `"base"` or `"large"`.
        width: int. Replaces the size's width.
        depth: int. Replaces the size's depth.
        num_heads: int. Replaces the size's heads.

    Returns:
        A tuple `(width, depth, num_heads)`.

    Raises:
        ValueError: If there is no such size.
    """
    if size not in SIZES:
        raise ValueError(
            f"`size` must be one of {sorted(SIZES)}. Received: size={size}"
        )
    chosen = zip((width, depth, num_heads), SIZES[size], strict=True)
    width, depth, num_heads = (own or named for own, named in chosen)
    return width, depth, num_heads


def split_text(inputs: Any) -> tuple[Any, Any]:
    """Returns the token ids and the padding mask, if any, of a text.

    Args:
        inputs: int tensor `(batch, length)`, or a dict that holds one as
            `"token_ids"` and perhaps a `"padding_mask"`.

    Returns:
        A tuple of the int32 ids and the bool mask or `None`.

    Raises:
        ValueError: If a dict has other keys.
    """
    if not isinstance(inputs, dict):
        return ops.cast(inputs, "int32"), None
    if not {"token_ids"} <= set(inputs) <= {"token_ids", "padding_mask"}:
        raise ValueError(
            "A text is a tensor of token ids, or a dict of 'token_ids' and "
            "'padding_mask' (True at tokens, False at padding). "
            f"Received: keys={sorted(inputs)}"
        )
    mask = inputs.get("padding_mask")
    if mask is not None:
        mask = ops.cast(mask, "bool")
    return ops.cast(inputs["token_ids"], "int32"), mask


@keras.saving.register_keras_serializable(package="keras_mla")
class M3AE(keras.Model):
    """The encoder of M3AE for one modality: image or text to features.

    A class token and the tokens of the input, with fixed sine and cosine
    positions and a learned type embedding, go through a pre-norm transformer;
    the feature is the mean of all tokens after the last norm. With
    `pooling=None` it is the sequence of tokens. Published weights are read by
    `convert_m3ae`, and `M3AEAutoencoder` pretrains.

    Args:
        modality: str. `"image"` or `"text"`.
        size: str. `"small"`, `"base"` or `"large"`: 384, 768 or 1024 features.
            Defaults to `"base"`.
        width: int. Features, instead of the size's.
        depth: int. Blocks, instead of the size's.
        num_heads: int. Attention heads, instead of the size's.
        mlp_ratio: int. Hidden width of a block over its width. Defaults to
            `4`.
        image_shape: tuple `(height, width, channels)`. Defaults to
            `(256, 256, 3)`.
        patch_size: int. Side of a patch. Defaults to `16`.
        trained_grid: tuple `(rows, columns)`. The grid of patches
            that the weights were trained on: positions are spread over it, so
            that an image of another size looks the same. Defaults to the
            image's own grid.
        vocabulary_size: int. Defaults to `30522`, that of BERT, uncased.
        max_length: int. The longest text. Defaults to `512`.
        approximate_gelu: bool. Defaults to `True`, as in the original.
        epsilon: float. Epsilon of the layer norms. Defaults to `1e-6`.
        dropout: float. Defaults to `0.0`.
        drop_path: float. Defaults to `0.0`.
        pool_padding: bool. Whether padding counts in the mean, as in the
            paper's experiments. `False`, the default, makes a feature
            independent of how far a text was padded.
        pooling: `"mean"` or `None`. Whether tokens are averaged. Defaults to
            `"mean"`.
        **kwargs: Arguments of `keras.Model`: `name`, `dtype`.

    Call arguments:
        inputs: for images a tensor `(batch, *image_shape)`; for text an int
            tensor `(batch, length)`, or a dict of it as `"token_ids"` and a
            bool `"padding_mask"` of the same shape, `True` at tokens (Keras
            Hub's convention; the original's mask is the opposite).
        training: bool. Whether to apply dropout and drop path.

    Returns:
        A tensor `(batch, width)` of the compute dtype. With `pooling=None`, a
        tensor `(batch, tokens, width)`; if the input has a padding mask, a
        dict of it as `"features"` and the mask, with the class token, as
        `"padding_mask"`, bool `(batch, tokens)`.

    Raises:
        ValueError: If an argument is out of range or inputs do not fit.

    Example:
    >>> encoder = keras_mla.encoders.M3AE(
    ...     "text", width=32, depth=2, num_heads=4
    ... )
    >>> x = {
    ...     "token_ids": np.ones((2, 10), "int32"),
    ...     "padding_mask": np.ones((2, 10), "bool"),
    ... }
    >>> tuple(encoder(x).shape)
    (2, 32)

    Reference:
        Geng et al., "Multimodal Masked Autoencoders Learn Transferable
        Representations", 2022, section 3.
    """

    built: bool

    def __init__(
        self,
        modality: str,
        size: str = "base",
        width: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        mlp_ratio: int = 4,
        image_shape: tuple[int, int, int] = (256, 256, 3),
        patch_size: int = 16,
        trained_grid: tuple[int, int] | None = None,
        vocabulary_size: int = 30522,
        max_length: int = 512,
        approximate_gelu: bool = True,
        epsilon: float = 1e-6,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        pool_padding: bool = False,
        pooling: str | None = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if modality not in ("image", "text"):
            raise ValueError(
                f"M3AE encodes 'image' or 'text'. Received: modality={modality}"
            )
        check_pooling(pooling)
        if pool_padding and pooling is None:
            raise ValueError(
                "`pool_padding` is about the mean of tokens. "
                f"Received: pool_padding={pool_padding}, pooling={pooling}"
            )
        self.modality = modality
        self.size = size
        self.width, self.depth, self.num_heads = transformer_size(
            size, width, depth, num_heads
        )
        self.mlp_ratio = mlp_ratio
        self.image_shape = tuple(image_shape)
        self.patch_size = patch_size
        self.trained_grid = tuple(trained_grid) if trained_grid else None
        self.vocabulary_size = vocabulary_size
        self.max_length = max_length
        self.approximate_gelu = approximate_gelu
        self.epsilon = epsilon
        self.dropout = dropout
        self.drop_path = drop_path
        self.pool_padding = pool_padding
        self.pooling = pooling
        dtype = self.dtype_policy
        self.embedding: Any
        if modality == "image":
            self.embedding = PatchEmbedding(
                self.width,
                check_patches(self.image_shape, patch_size, "image_shape"),
                patch_size,
                trained_grid=trained_grid,
                dtype=dtype,
                name="image_embedding",
            )
        else:
            self.embedding = TextEmbedding(
                self.width,
                vocabulary_size,
                max_length,
                dtype=dtype,
                name="text_embedding",
            )
        self.encoder = Transformer(
            self.depth,
            self.num_heads,
            mlp_ratio=mlp_ratio,
            approximate_gelu=approximate_gelu,
            epsilon=epsilon,
            dropout=dropout,
            drop_path=drop_path,
            dtype=dtype,
            name="encoder",
        )
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights. The constructor calls it."""
        if self.built:
            return
        self.cls_token = self.add_weight(
            shape=(1, 1, self.width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="cls_token",
        )
        self.embedding.build((None, *self.image_shape))
        self.encoder.build((None, None, self.width))
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Computes the features of a batch."""
        mask = None
        if self.modality == "text":
            inputs, mask = split_text(inputs)
        else:
            check_image(inputs, self.image_shape, "images")
        tokens = self.embedding(inputs)
        tokens, mask = prepend_class_token(self.cls_token, tokens, mask)
        tokens = self.encoder(tokens, padding_mask=mask, training=training)
        if self.pooling is None:
            if mask is None:
                return tokens
            return {"features": tokens, "padding_mask": mask}
        if mask is None or self.pool_padding:
            return ops.mean(tokens, axis=1)
        weights = ops.cast(mask, tokens.dtype)[:, :, None]
        return ops.sum(
            tokens * (weights / ops.sum(weights, axis=1, keepdims=True)),
            axis=1,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "modality": self.modality,
            "size": self.size,
            "width": self.width,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "image_shape": self.image_shape,
            "patch_size": self.patch_size,
            "trained_grid": self.trained_grid,
            "vocabulary_size": self.vocabulary_size,
            "max_length": self.max_length,
            "approximate_gelu": self.approximate_gelu,
            "epsilon": self.epsilon,
            "dropout": self.dropout,
            "drop_path": self.drop_path,
            "pool_padding": self.pool_padding,
            "pooling": self.pooling,
        }


def prepend_class_token(
    cls_token: Any, tokens: Any, mask: Any
) -> tuple[Any, Any]:
    """Puts a class token, which is never padding, before the others.

    Args:
        cls_token: weight `(1, 1, width)`.
        tokens: float tensor `(batch, tokens, width)`.
        mask: bool tensor `(batch, tokens)`.

    Returns:
        The longer tokens and the longer mask, or `None`.
    """
    batch = ops.shape(tokens)[0]
    first = ops.broadcast_to(
        ops.cast(cls_token, tokens.dtype), (batch, 1, tokens.shape[-1])
    )
    if mask is not None:
        mask = ops.concatenate([ops.ones((batch, 1), "bool"), mask], axis=1)
    return ops.concatenate([first, tokens], axis=1), mask
