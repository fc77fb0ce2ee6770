"""CLIP's towers, converter and tokenizer from presets of Keras Hub."""

from typing import Any

from keras_mla.encoders.clip.tokens import CLIPTokens, load_tokenizer
from keras_mla.encoders.clip.towers import CLIPImageTower, CLIPTextTower
from keras_mla.encoders.hub import import_hub, load_preset


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


def clip_tokenizer(preset: str, sequence_length: int = 77) -> CLIPTokens:
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
    return CLIPTokens(load_tokenizer(preset), sequence_length)
