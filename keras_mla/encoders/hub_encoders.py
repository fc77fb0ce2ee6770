"""Encoders of images and texts from any preset of Keras Hub."""

from typing import Any

import keras
from keras import layers, ops

from keras_mla.encoders.clip.presets import image_tower, text_tower
from keras_mla.encoders.hub import import_hub, load_preset

# Beyond that many tokens a text is cut, unless a user says otherwise.
LONGEST = 256
_TEXT_INPUTS = {"token_ids", "padding_mask", "segment_ids"}


def hub_image_encoder(preset: str, trainable: bool = True) -> keras.Model:
    """Makes an encoder of images from a preset of Keras Hub.

    A map of features, or a sequence of tokens, becomes its mean. CLIP gives
    its projected features. `keras_mla.datasets.image.hub_settings` reads
    images as the preset expects them.

    Args:
        preset: str. A preset's name such as `"resnet_50_imagenet"`, which is
            downloaded, or a folder that `save_to_preset` has written.
        trainable: bool. `False` freezes all weights. Defaults to `True`.

    Returns:
        A `keras.Model` of images `(batch, size, size, 3)` to features
        `(batch, width)`.

    Raises:
        ValueError: If the preset cannot be loaded, or is not one of images.
        ImportError: If Keras Hub is not installed.

    Example:
    >>> import keras_hub, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> keras_hub.models.ViTBackbone(
    ...     (16, 16, 3), 8, 1, 2, 8, 16, dropout_rate=0.0
    ... ).save_to_preset(folder)
    >>> keras_hub.layers.ViTImageConverter(
    ...     image_size=(16, 16), scale=1 / 255
    ... ).save_to_preset(folder)
    >>> encoder = keras_mla.encoders.hub_image_encoder(folder)
    >>> tuple(encoder(np.zeros((2, 16, 16, 3), "float32")).shape)
    (2, 8)
    """
    hub = import_hub()
    converter = load_preset(hub.layers.ImageConverter, preset)
    backbone = load_preset(hub.models.Backbone, preset)
    size = converter.image_size or (224, 224)
    inputs = keras.Input((*size, 3), name="images")
    if isinstance(backbone, hub.models.CLIPBackbone):
        outputs = image_tower(backbone)(inputs)
    else:
        expected = backbone.input
        if isinstance(expected, dict):
            if set(expected) != {"images"}:
                raise ValueError(
                    "A preset of images takes images alone. Received: "
                    f"preset={preset}, which takes {sorted(expected)}"
                )
            outputs = backbone({"images": inputs})
        else:
            outputs = backbone(inputs)
    encoder = keras.Model(inputs, _mean(preset, outputs))
    encoder.trainable = trainable
    return encoder


def hub_text_encoder(
    preset: str, length: int | None = None, trainable: bool = True
) -> keras.Model:
    """Makes an encoder of texts from a preset of Keras Hub.

    The features are the mean of the last layer over tokens. CLIP gives its
    projected features. `keras_mla.datasets.table.Text(tokenizer=preset)` reads
    texts as the preset expects them.

    Args:
        preset: str. A preset's name such as `"bert_tiny_en_uncased"`, which is
            downloaded, or a folder that `save_to_preset` has written.
        length: int. Number of tokens of a text, with padding. Defaults to the
            most that the preset reads, at most 256.
        trainable: bool. `False` freezes all weights. Defaults to `True`.

    Returns:
        A `keras.Model` of a dict of `"token_ids"`, int32, and
        `"padding_mask"`, bool, each `(batch, length)`, to features
        `(batch, width)`.

    Raises:
        ValueError: If the preset cannot be loaded, or takes other inputs than
            a text's tokens.
        ImportError: If Keras Hub is not installed.

    Example:
    >>> import keras_hub, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> keras_hub.models.DistilBertBackbone(
    ...     50, 1, 2, 8, 16, max_sequence_length=12
    ... ).save_to_preset(folder)
    >>> encoder = keras_mla.encoders.hub_text_encoder(folder, length=6)
    >>> ids = np.array([[2, 7, 9, 3, 0, 0]], "int32")
    >>> x = {"token_ids": ids, "padding_mask": ids != 0}
    >>> tuple(encoder(x).shape)
    (1, 8)
    """
    text = TextPreset(preset)
    if length is not None and length > text.longest:
        raise ValueError(
            f"The preset {preset} reads at most {text.longest} tokens. "
            f"Received: length={length}"
        )
    encoder = text.encoder(length or min(text.longest, LONGEST))
    encoder.trainable = trainable
    return encoder


@keras.saving.register_keras_serializable(package="keras_mla")
class AsInPrediction(layers.Layer):
    """A frozen model in another one, without dropout in training too.

    `training=False` in a call of a functional model's layer does not do: it
    holds only until the whole model is called with `training=True`.

    Args:
        model: `keras.Model`, built.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, model: keras.Model, **kwargs: Any) -> None:
        kwargs.pop("trainable", None)
        super().__init__(trainable=False, **kwargs)
        self.model = model
        model.trainable = False
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Returns what the model predicts."""
        return self.model(inputs, training=False)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, serialized."""
        model = keras.saving.serialize_keras_object(self.model)
        return {**super().get_config(), "model": model}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AsInPrediction":
        """Makes the layer from its config."""
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(**{**config, "model": model})


class TextPreset:
    """A preset of texts, whose encoder may be made for a length.

    Args:
        preset: str. A preset's name, or a folder.

    Attributes:
        longest: int. The most tokens that the preset reads; `2**31` if it
            knows no limit.
    """

    def __init__(self, preset: str) -> None:
        hub = import_hub()
        self._preset = preset
        self._backbone = load_preset(hub.models.Backbone, preset)
        self._is_clip = isinstance(self._backbone, hub.models.CLIPBackbone)
        part = self._backbone
        part = part.text_encoder if self._is_clip else part
        self.longest: int = getattr(part, "max_sequence_length", 1 << 31)

    def encoder(self, length: int) -> keras.Model:
        """Returns the encoder of texts of so many tokens."""
        inputs = _tokens(length)
        if self._is_clip:
            outputs = text_tower(self._backbone)(inputs)
        else:
            outputs = _states(self._preset, self._backbone, inputs)
        return keras.Model(inputs, outputs)


def _tokens(length: int) -> dict[str, Any]:
    return {
        "token_ids": keras.Input((length,), dtype="int32", name="token_ids"),
        "padding_mask": keras.Input(
            (length,), dtype="bool", name="padding_mask"
        ),
    }


def _states(preset: str, backbone: Any, inputs: dict[str, Any]) -> Any:
    """Returns the mean of a backbone's last layer over tokens."""
    expected = backbone.input
    names = set(expected) if isinstance(expected, dict) else {"an array"}
    if not names <= _TEXT_INPUTS:
        raise ValueError(
            f"A preset of texts takes {sorted(_TEXT_INPUTS)}, or some of them. "
            f"Received: preset={preset}, which takes {sorted(names)}"
        )
    mask = inputs["padding_mask"]
    given = {
        "token_ids": inputs["token_ids"],
        "padding_mask": ops.cast(mask, "int32"),
        "segment_ids": ops.zeros_like(inputs["token_ids"]),
    }
    outputs = backbone({name: given[name] for name in names})
    if isinstance(outputs, dict):
        outputs = outputs["sequence_output"]
    weights = ops.expand_dims(ops.cast(mask, outputs.dtype), -1)
    count = ops.maximum(ops.sum(weights, axis=1), 1)
    return ops.sum(outputs * weights, axis=1) / count


def _mean(preset: str, outputs: Any) -> Any:
    """Returns features `(batch, width)`: a mean over places or tokens."""
    if isinstance(outputs, dict) or len(outputs.shape) not in (2, 3, 4):
        raise ValueError(
            "A preset of images gives one map of features, or a sequence. "
            f"Received: preset={preset}, which gives {outputs}"
        )
    if len(outputs.shape) == 4:
        return layers.GlobalAveragePooling2D()(outputs)
    if len(outputs.shape) == 3:
        return layers.GlobalAveragePooling1D()(outputs)
    return outputs
