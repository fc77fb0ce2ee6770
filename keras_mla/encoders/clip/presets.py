"""CLIP's towers, converter and tokenizer from presets of Keras Hub."""

from typing import Any

from keras_mla.encoders.clip.tokens import CLIPTokens, load_tokenizer
from keras_mla.encoders.clip.towers import CLIPImageTower, CLIPTextTower
from keras_mla.encoders.hub import import_hub, load_preset


def clip_image_encoder(
    preset: str, trainable: bool = True, **kwargs: Any
) -> CLIPImageTower:
    """Makes CLIP's image tower with its projection from a preset.

    Args:
        preset: str. A Keras Hub preset such as `"clip_vit_base_patch32"`,
            downloaded, or a local folder of one.
        trainable: bool. `False` freezes all weights. Defaults to `True`.
        **kwargs: Passed on to `CLIPBackbone.from_preset`, such as `dtype`.

    Returns:
        A `CLIPImageTower`.

    Raises:
        ValueError: If the preset cannot be loaded.
        ImportError: If Keras Hub is not installed.

    Example:
    A preset's name, such as `"clip_vit_base_patch32"`, is downloaded. A local
    folder is read:
    >>> import keras_hub, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> keras_hub.models.CLIPBackbone(
    ...     keras_hub.models.CLIPVisionEncoder(
    ...         8, 16, 1, 2, 32, image_shape=(16, 16, 3)
    ...     ),
    ...     keras_hub.models.CLIPTextEncoder(
    ...         50, 16, 16, 1, 2, 32, max_sequence_length=8
    ...     ),
    ...     projection_dim=4,
    ... ).save_to_preset(folder)
    >>> encoder = keras_mla.encoders.clip_image_encoder(folder)
    >>> tuple(encoder(np.zeros((2, 16, 16, 3), "float32")).shape)
    (2, 4)

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural
        Language Supervision", ICML 2021.
    """
    clip = load_preset(import_hub().models.CLIPBackbone, preset, **kwargs)
    encoder = image_tower(clip)
    encoder.trainable = trainable
    return encoder


def image_tower(clip: Any) -> CLIPImageTower:
    """Returns the image tower of a `CLIPBackbone`, with its projection."""
    encoder = CLIPImageTower(
        clip.vision_encoder, clip.projection_dim, dtype=clip.dtype_policy
    )
    encoder.projection.set_weights(clip.vision_projection.get_weights())
    return encoder


def clip_text_encoder(
    preset: str, trainable: bool = True, **kwargs: Any
) -> CLIPTextTower:
    """Makes CLIP's text tower with its projection from a preset.

    Args:
        preset: str. A Keras Hub preset such as `"clip_vit_base_patch32"`,
            downloaded, or a local folder of one.
        trainable: bool. `False` freezes all weights. Defaults to `True`.
        **kwargs: Passed on to `CLIPBackbone.from_preset`, such as `dtype`.

    Returns:
        A `CLIPTextTower`.

    Raises:
        ValueError: If the preset cannot be loaded.
        ImportError: If Keras Hub is not installed.

    Example:
    A preset's name, such as `"clip_vit_base_patch32"`, is downloaded. A local
    folder is read:
    >>> import keras_hub, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> keras_hub.models.CLIPBackbone(
    ...     keras_hub.models.CLIPVisionEncoder(
    ...         8, 16, 1, 2, 32, image_shape=(16, 16, 3)
    ...     ),
    ...     keras_hub.models.CLIPTextEncoder(
    ...         50, 16, 16, 1, 2, 32, max_sequence_length=8
    ...     ),
    ...     projection_dim=4,
    ... ).save_to_preset(folder)
    >>> encoder = keras_mla.encoders.clip_text_encoder(folder)
    >>> tuple(encoder(np.ones((2, 8), "int32")).shape)
    (2, 4)

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural
        Language Supervision", ICML 2021.
    """
    clip = load_preset(import_hub().models.CLIPBackbone, preset, **kwargs)
    encoder = text_tower(clip)
    encoder.trainable = trainable
    return encoder


def text_tower(clip: Any) -> CLIPTextTower:
    """Returns the text tower of a `CLIPBackbone`, with its projection."""
    encoder = CLIPTextTower(
        clip.text_encoder, clip.projection_dim, dtype=clip.dtype_policy
    )
    encoder.projection.set_weights(clip.text_projection.get_weights())
    return encoder


def clip_image_converter(preset: str) -> Any:
    """Loads the resizing and scaling of images that belongs to a preset.

    Args:
        preset: str. A Keras Hub preset or a local folder of one.

    Returns:
        A `keras_hub.layers.CLIPImageConverter`: uint8 or float images of any
        size, in 0-255, to `(batch, height, width, 3)` floats.

    Raises:
        ValueError: If the preset cannot be loaded.
        ImportError: If Keras Hub is not installed.
    """
    return load_preset(import_hub().layers.CLIPImageConverter, preset)


def clip_tokenizer(preset: str, sequence_length: int = 77) -> CLIPTokens:
    """Loads the tokenizer of a preset, which packs to a fixed length.

    Args:
        preset: str. A Keras Hub preset or a local folder of one.
        sequence_length: int. Tokens of a text, start and end included.
            Defaults to `77`.

    Returns:
        A `CLIPTokens`.

    Raises:
        ValueError: If the preset cannot be loaded.
        ImportError: If Keras Hub is not installed.
    """
    return CLIPTokens(load_tokenizer(preset), sequence_length)
