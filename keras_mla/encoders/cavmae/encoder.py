"""CAV-MAE's transformer as the encoder of one modality, audio or image."""

from typing import Any

import keras
from keras import ops

from keras_mla.encoders.nn.embeddings import PatchEmbedding
from keras_mla.encoders.nn.tokens import (
    check_image,
    check_patches,
    check_pooling,
)
from keras_mla.layers.transformer import Transformer

SHAPES = {"audio": (1024, 128, 1), "image": (224, 224, 3)}


@keras.saving.register_keras_serializable(package="keras_mla")
class CAVMAE(keras.Model):
    """The encoder of CAV-MAE for one modality: audio or image to features.

    Patches with a position and a modality embedding go through the blocks of
    their modality and then through the block that audio and image share, with
    the layer norms that the modality has there; the feature is the mean of
    the tokens after its own last norm. With `pooling=None` it is the sequence
    of tokens. Published weights are read by `convert_cavmae`, and
    `CAVMAEAutoencoder` pretrains.

    Args:
        modality: str. `"audio"` or `"image"`.
        input_shape: tuple: `(time, frequency, 1)` for audio,
            `(height, width, channels)` for images. Defaults to
            `(1024, 128, 1)` and `(224, 224, 3)`.
        width: int. Features; a multiple of four. Defaults to `768`.
        num_heads: int. Defaults to `12`.
        depth: int. Blocks of the modality. Defaults to `11`.
        shared_depth: int. Blocks that both modalities share. Defaults to `1`.
        mlp_ratio: int. Hidden width of a block over its width. Defaults to
            `4`.
        patch_size: int. Defaults to `16`.
        trainable_positions: bool. Whether positions are learned. Defaults to
            `True`, as in fine-tuning.
        dropout: float. Defaults to `0.0`.
        drop_path: float. Rate of the last block. Defaults to `0.0`.
        pooling: `"mean"` or `None`. Whether tokens are averaged. Defaults to
            `"mean"`.
        **kwargs: Arguments of `keras.Model`: `name`, `dtype`.

    Call arguments:
        inputs: float tensor `(batch, *input_shape)`.
        training: bool. Whether to apply dropout and drop path.

    Returns:
        A tensor `(batch, width)` of the compute dtype; with `pooling=None`,
        `(batch, tokens, width)`.

    Raises:
        ValueError: If an argument is out of range or inputs do not fit.

    Example:
    >>> encoder = keras_mla.encoders.CAVMAE(
    ...     "audio", (64, 32, 1), width=32, depth=1, num_heads=4
    ... )
    >>> tuple(encoder(np.zeros((2, 64, 32, 1), "float32")).shape)
    (2, 32)

    Reference:
        Gong et al., "Contrastive Audio-Visual Masked Autoencoder", ICLR 2023,
        section 2.4.
    """

    built: bool

    def __init__(
        self,
        modality: str,
        input_shape: tuple[int, int, int] | None = None,
        width: int = 768,
        num_heads: int = 12,
        depth: int = 11,
        shared_depth: int = 1,
        mlp_ratio: int = 4,
        patch_size: int = 16,
        trainable_positions: bool = True,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        pooling: str | None = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if modality not in SHAPES:
            raise ValueError(
                "CAV-MAE encodes 'audio' or 'image'. "
                f"Received: modality={modality}"
            )
        check_pooling(pooling)
        self.modality = modality
        self.example_shape = tuple(input_shape or SHAPES[modality])
        self.width = width
        self.num_heads = num_heads
        self.depth = depth
        self.shared_depth = shared_depth
        self.mlp_ratio = mlp_ratio
        self.patch_size = patch_size
        self.trainable_positions = trainable_positions
        self.dropout = dropout
        self.drop_path = drop_path
        self.pooling = pooling
        self.embedding = patch_embedding(
            modality,
            self.example_shape,
            width,
            patch_size,
            trainable_positions,
            self.dtype_policy,
        )
        shared = {
            "mlp_ratio": mlp_ratio,
            "dropout": dropout,
            "dtype": self.dtype_policy,
        }
        self.blocks = Transformer(
            depth,
            num_heads,
            final_norm=False,
            drop_path=drop_path,
            name="blocks",
            **shared,
        )
        self.shared = Transformer(
            shared_depth, num_heads, name="shared", **shared
        )
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights. The constructor calls it."""
        if self.built:
            return
        self.embedding.build((None, *self.example_shape))
        self.blocks.build((None, None, self.width))
        self.shared.build((None, None, self.width))
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Computes the features of a batch."""
        what = "spectrograms" if self.modality == "audio" else "images"
        check_image(inputs, self.example_shape, what)
        tokens = self.blocks(self.embedding(inputs), training=training)
        tokens = self.shared(tokens, training=training)
        return tokens if self.pooling is None else ops.mean(tokens, axis=1)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "modality": self.modality,
            "input_shape": self.example_shape,
            "width": self.width,
            "num_heads": self.num_heads,
            "depth": self.depth,
            "shared_depth": self.shared_depth,
            "mlp_ratio": self.mlp_ratio,
            "patch_size": self.patch_size,
            "trainable_positions": self.trainable_positions,
            "dropout": self.dropout,
            "drop_path": self.drop_path,
            "pooling": self.pooling,
        }


def patch_embedding(
    modality: str,
    shape: tuple[int, ...],
    width: int,
    patch_size: int,
    trainable_positions: bool,
    dtype: Any,
) -> PatchEmbedding:
    """Makes the embedding of a modality. It reads spectrograms frequency first.

    Args:
        modality: str. `"audio"` or `"image"`.
        shape: tuple. The input without the batch.
        width: int. Features of a token.
        patch_size: int. Side of a patch.
        trainable_positions: bool. Whether positions are learned.
        dtype: dtype policy.

    Returns:
        A `PatchEmbedding`.

    Raises:
        ValueError: If the shape cannot be cut into patches.
    """
    if len(shape) != 3:
        form = {
            "audio": "(time, frequency, 1)",
            "image": "(height, width, channels)",
        }
        raise ValueError(
            f"CAV-MAE reads {modality} of shape {form[modality]}. "
            f"Received: input_shape={tuple(shape)}"
        )
    rows, columns = check_patches(shape, patch_size, "input_shape")
    return PatchEmbedding(
        width,
        (columns, rows) if modality == "audio" else (rows, columns),
        patch_size,
        trainable_positions=trainable_positions,
        transposed=modality == "audio",
        dtype=dtype,
        name=f"{modality}_embedding",
    )
