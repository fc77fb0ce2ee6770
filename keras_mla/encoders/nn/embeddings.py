"""Embeddings of patches and of words, with positions and modality types."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_mla.encoders.nn.tokens import patchify, sincos_1d, sincos_2d
from keras_mla.layers.attention import apply_dense


def table_initializer(table: np.ndarray) -> Any:
    """Makes an initializer that returns the values of a table."""

    def initialize(shape: tuple[int, ...], dtype: Any = None) -> Any:
        return ops.convert_to_tensor(table.reshape(shape), dtype)

    return initialize


@keras.saving.register_keras_serializable(package="keras_mla")
class PatchEmbedding(layers.Layer):
    """Embeds images or spectrograms: patches, projection, position, type.

    Args:
        width: int. Features of a token; a multiple of four.
        grid: tuple `(rows, columns)` of patches.
        patch_size: int. Side of a patch. Defaults to `16`.
        trained_grid: tuple `(rows, columns)`. The grid that the
            positions were trained on, if another: they are spread over it.
        trainable_positions: bool. Whether the positions, which start as sines
            and cosines, are learned. Defaults to `False`.
        transposed: bool. Whether the input is `(batch, columns, rows, ...)`:
            spectrograms come with time first, CAV-MAE reads them with
            frequency first. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: tensor `(batch, height, width, channels)`.

    Returns:
        A tensor `(batch, rows * columns, width)` of the compute dtype.

    Example:
    >>> embed = keras_mla.encoders.PatchEmbedding(32, grid=(2, 2), patch_size=8)
    >>> tuple(embed(np.zeros((1, 16, 16, 3), "float32")).shape)
    (1, 4, 32)

    Reference:
        He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR
        2022.
    """

    def __init__(
        self,
        width: int,
        grid: tuple[int, int],
        patch_size: int = 16,
        trained_grid: tuple[int, int] | None = None,
        trainable_positions: bool = False,
        transposed: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.grid = (grid[0], grid[1])
        self.patch_size = patch_size
        self.trained_grid: tuple[int, int] | None = None
        if trained_grid:
            self.trained_grid = (trained_grid[0], trained_grid[1])
        self.trainable_positions = trainable_positions
        self.transposed = transposed
        self.projection = layers.Dense(
            width, dtype=self.dtype_policy, name="projection"
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights for the channels of `input_shape`."""
        tokens = self.grid[0] * self.grid[1]
        values = self.patch_size**2 * int(input_shape[-1] or 0)
        self.projection.build((None, tokens, values))
        table = sincos_2d(self.width, self.grid, self.trained_grid)
        self.positions = self.add_weight(
            shape=(tokens, self.width),
            initializer=table_initializer(table),
            trainable=self.trainable_positions,
            name="positions",
        )
        self.type_embedding = self.add_weight(
            shape=(1, 1, self.width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="type_embedding",
        )

    def call(self, inputs: Any) -> Any:
        """Embeds a batch."""
        x = ops.cast(inputs, self.compute_dtype)
        if self.transposed:
            x = ops.transpose(x, (0, 2, 1, 3))
        x = apply_dense(self.projection, patchify(x, self.patch_size))
        return x + (self.positions[None] + self.type_embedding)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "width": self.width,
            "grid": self.grid,
            "patch_size": self.patch_size,
            "trained_grid": self.trained_grid,
            "trainable_positions": self.trainable_positions,
            "transposed": self.transposed,
        }


@keras.saving.register_keras_serializable(package="keras_mla")
class TextEmbedding(layers.Layer):
    """Embeds token ids: word, position, type.

    Args:
        width: int. Features of a token; even.
        vocabulary_size: int. Number of words.
        max_length: int. The longest text. Defaults to `512`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: int tensor `(batch, length)`.

    Returns:
        A tensor `(batch, length, width)` of the compute dtype.

    Raises:
        ValueError: If a text is longer than `max_length`.

    Example:
    >>> embed = keras_mla.encoders.TextEmbedding(32, vocabulary_size=100)
    >>> tuple(embed(np.ones((2, 7), "int32")).shape)
    (2, 7, 32)

    Reference:
        Geng et al., "Multimodal Masked Autoencoders Learn Transferable
        Representations", 2022, section 3.
    """

    def __init__(
        self,
        width: int,
        vocabulary_size: int,
        max_length: int = 512,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.vocabulary_size = vocabulary_size
        self.max_length = max_length
        self.words = layers.Embedding(
            vocabulary_size,
            width,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0),
            dtype=self.dtype_policy,
            name="words",
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights."""
        self.words.build(input_shape)
        self.positions = self.add_weight(
            shape=(self.max_length, self.width),
            initializer=table_initializer(
                sincos_1d(self.width, np.arange(self.max_length))
            ),
            trainable=False,
            name="positions",
        )
        self.type_embedding = self.add_weight(
            shape=(1, 1, self.width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="type_embedding",
        )

    def call(self, inputs: Any) -> Any:
        """Embeds a batch."""
        length = ops.shape(inputs)[1]
        if isinstance(length, int) and length > self.max_length:
            raise ValueError(
                "The texts are longer than `max_length`. Received: "
                f"length={length}, max_length={self.max_length}"
            )
        positions = self.positions[:length][None]
        return self.words(inputs) + (positions + self.type_embedding)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "width": self.width,
            "vocabulary_size": self.vocabulary_size,
            "max_length": self.max_length,
        }
