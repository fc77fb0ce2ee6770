"""CLIP's two towers as encoders, with what feeds them raw images and text."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_mla.encoders.hub import (
    import_hub,
    load_clip_tokenizer,
    load_preset,
)


class _CLIPTower(keras.Model):
    """A tower of Keras Hub's CLIP, pooled and projected."""

    def __init__(self, tower: Any, projection_dim: int, **kwargs: Any) -> None:
        trainable = kwargs.pop("trainable", True)
        super().__init__(**kwargs)
        self.tower = tower
        self.projection_dim = projection_dim
        self.projection = layers.Dense(
            projection_dim,
            use_bias=False,
            dtype=self.dtype_policy,
            name="projection",
        )
        self.projection.build((None, tower.output.shape[-1]))
        self.build()
        self.trainable = trainable

    def build(self, input_shape: Any = None) -> None:
        """The weights exist already: notes that the model is built."""
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "tower": keras.saving.serialize_keras_object(self.tower),
            "projection_dim": self.projection_dim,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> Any:
        """Makes the tower anew; Keras Hub must be there to know its parts."""
        import_hub()
        tower = keras.saving.deserialize_keras_object(
            config["tower"], custom_objects=custom_objects
        )
        return cls(**{**config, "tower": tower})


@keras.saving.register_keras_serializable(package="keras_mla")
class CLIPImageTower(_CLIPTower):
    """CLIP's image tower: `(batch, height, width, 3)` to projected features.

    The features are those of CLIP before their normalization to unit length.
    `clip_image_encoder` makes one from a preset.

    Args:
        tower: a `keras_hub.models.CLIPVisionEncoder`.
        projection_dim: int. Width of the features.

    Call arguments:
        inputs: float tensor `(batch, height, width, 3)` of the preset's size,
            scaled as `clip_image_converter` does.
        training: optional bool.

    Returns:
        A tensor `(batch, projection_dim)` of the compute dtype.

    Raises:
        ValueError: if the images have another size.

    Example:
    ```python
    tower = keras_hub.models.CLIPVisionEncoder(8, 16, 1, 2, 32,
                                               image_shape=(16, 16, 3))
    encoder = keras_mla.encoders.CLIPImageTower(tower, projection_dim=4)
    features = encoder(np.zeros((2, 16, 16, 3), "float32"))  # (2, 4)
    ```

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural
        Language Supervision", ICML 2021.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Computes the features of a batch."""
        expected = tuple(self.tower.image_shape)
        if tuple(inputs.shape[1:]) != expected:
            raise ValueError(
                f"This CLIP tower reads images of shape {expected}; "
                "`clip_image_converter` resizes them. "
                f"Received: inputs.shape={tuple(inputs.shape)}"
            )
        tokens = self.tower({"images": inputs}, training=training)
        return self.projection(tokens[:, 0])


@keras.saving.register_keras_serializable(package="keras_mla")
class CLIPTextTower(_CLIPTower):
    """CLIP's text tower: token ids to projected features.

    The feature is that of the end token, found as the largest id. CLIP's
    attention is causal, so nothing that comes after that token, padding
    included, has any influence: no padding mask is needed, and one in the
    input is accepted for convenience. `clip_text_encoder` makes a tower from
    a preset.

    Args:
        tower: a `keras_hub.models.CLIPTextEncoder`.
        projection_dim: int. Width of the features.

    Call arguments:
        inputs: int tensor `(batch, tokens)`, or a dict that holds one as
            `"token_ids"`, such as `clip_tokenizer` returns.
        training: optional bool.

    Returns:
        A tensor `(batch, projection_dim)` of the compute dtype.

    Raises:
        ValueError: if a dict has no `"token_ids"`.

    Example:
    ```python
    tower = keras_hub.models.CLIPTextEncoder(50, 16, 16, 1, 2, 32,
                                             max_sequence_length=8)
    encoder = keras_mla.encoders.CLIPTextTower(tower, projection_dim=4)
    features = encoder(np.ones((2, 8), "int32"))  # (2, 4)
    ```

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural
        Language Supervision", ICML 2021.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Computes the features of a batch."""
        if isinstance(inputs, dict):
            if "token_ids" not in inputs:
                raise ValueError(
                    "Text for CLIP is a tensor of token ids, or a dict with "
                    f"'token_ids'. Received: keys={sorted(inputs)}"
                )
            inputs = inputs["token_ids"]
        ids = ops.cast(inputs, "int32")
        tokens = self.tower({"token_ids": ids}, training=training)
        end = ops.argmax(ids, axis=-1)[:, None, None]
        return self.projection(ops.take_along_axis(tokens, end, axis=1)[:, 0])


def clip_image_encoder(
    preset: str, trainable: bool = True, **kwargs: Any
) -> CLIPImageTower:
    """CLIP's image tower with its projection, from a preset.

    Args:
        preset: str. A Keras Hub preset such as `"clip_vit_base_patch32"`,
            downloaded, or a local folder of one.
        trainable: bool. `False` freezes all weights. Defaults to `True`.
        **kwargs: passed on to `CLIPBackbone.from_preset`, such as `dtype`.

    Returns:
        A `CLIPImageTower`.

    Raises:
        ValueError: if the preset cannot be loaded.
        ImportError: without Keras Hub.

    Example:
    ```python
    encoder = keras_mla.encoders.clip_image_encoder("clip_vit_base_patch32")
    convert = keras_mla.encoders.clip_image_converter("clip_vit_base_patch32")
    features = encoder(convert(images))  # (batch, 512)
    ```

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural
        Language Supervision", ICML 2021.
    """
    clip = load_preset(import_hub().models.CLIPBackbone, preset, **kwargs)
    encoder = CLIPImageTower(
        clip.vision_encoder, clip.projection_dim, dtype=clip.dtype_policy
    )
    encoder.projection.set_weights(clip.vision_projection.get_weights())
    encoder.trainable = trainable
    return encoder


def clip_text_encoder(
    preset: str, trainable: bool = True, **kwargs: Any
) -> CLIPTextTower:
    """CLIP's text tower with its projection, from a preset.

    Args:
        preset: str. A Keras Hub preset such as `"clip_vit_base_patch32"`,
            downloaded, or a local folder of one.
        trainable: bool. `False` freezes all weights. Defaults to `True`.
        **kwargs: passed on to `CLIPBackbone.from_preset`, such as `dtype`.

    Returns:
        A `CLIPTextTower`.

    Raises:
        ValueError: if the preset cannot be loaded.
        ImportError: without Keras Hub.

    Example:
    ```python
    encoder = keras_mla.encoders.clip_text_encoder("clip_vit_base_patch32")
    tokenize = keras_mla.encoders.clip_tokenizer("clip_vit_base_patch32")
    features = encoder(tokenize(["a dog", "a cat"]))  # (2, 512)
    ```

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural
        Language Supervision", ICML 2021.
    """
    clip = load_preset(import_hub().models.CLIPBackbone, preset, **kwargs)
    encoder = CLIPTextTower(
        clip.text_encoder, clip.projection_dim, dtype=clip.dtype_policy
    )
    encoder.projection.set_weights(clip.text_projection.get_weights())
    encoder.trainable = trainable
    return encoder


def clip_image_converter(preset: str) -> Any:
    """The resizing and scaling of images that belongs to a preset.

    Args:
        preset: str. A Keras Hub preset or a local folder of one.

    Returns:
        A `keras_hub.layers.CLIPImageConverter`: uint8 or float images of any
        size, in 0-255, to `(batch, height, width, 3)` floats.

    Raises:
        ValueError: if the preset cannot be loaded.
        ImportError: without Keras Hub.
    """
    return load_preset(import_hub().layers.CLIPImageConverter, preset)


def clip_tokenizer(preset: str, sequence_length: int = 77) -> "CLIPTokens":
    """The tokenizer that belongs to a preset, packing to a fixed length.

    Args:
        preset: str. A Keras Hub preset or a local folder of one.
        sequence_length: int. Tokens of a text, start and end included.
            Defaults to `77`.

    Returns:
        A `CLIPTokens`.

    Raises:
        ValueError: if the preset cannot be loaded.
        ImportError: without Keras Hub.
    """
    return CLIPTokens(load_clip_tokenizer(preset), sequence_length)


class CLIPTokens:
    """Turns strings into the input of `CLIPTextTower`.

    Args:
        tokenizer: a `keras_hub.models.CLIPTokenizer`.
        sequence_length: int. Tokens of a text, start and end included; longer
            texts are cut and still end in the end token. Defaults to `77`.

    Call arguments:
        texts: str or sequence of str.

    Returns:
        A dict of NumPy arrays: `"token_ids"`, int32 `(texts, length)`, and
        `"padding_mask"`, bool, `True` at tokens.

    Raises:
        ValueError: if `sequence_length` leaves no room between start and end.
        TypeError: if a text is no string.
    """

    def __init__(self, tokenizer: Any, sequence_length: int = 77) -> None:
        if sequence_length < 3:
            raise ValueError(
                "A text needs a start, an end and something between them. "
                f"Received: sequence_length={sequence_length}"
            )
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length

    def __call__(self, texts: str | Sequence[str]) -> dict[str, np.ndarray]:
        """Tokenizes and packs."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(
                    "CLIP's tokenizer reads strings. "
                    f"Received: {text!r} of type {type(text).__name__}"
                )
        shape = (len(texts), self.sequence_length)
        ids: Any = np.full(shape, self.tokenizer.pad_token_id, "int32")
        mask: Any = np.zeros(shape, "bool")
        for row, text in enumerate(texts):
            tokens = np.asarray(self.tokenizer(text.lower())).tolist()
            tokens = [
                self.tokenizer.start_token_id,
                *tokens[: self.sequence_length - 2],
                self.tokenizer.end_token_id,
            ]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return {"token_ids": ids, "padding_mask": mask}
