"""CLIP's two towers as encoders of images and of texts."""

from typing import Any

import keras
from keras import layers, ops

from keras_mla.encoders.hub import import_hub


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
        """Marks the model as built: the constructor has made the weights."""
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "tower": keras.saving.serialize_keras_object(self.tower),
            "projection_dim": self.projection_dim,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> Any:
        """Makes the tower from its config, which needs Keras Hub."""
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
        tower: `keras_hub.models.CLIPVisionEncoder`.
        projection_dim: int. Width of the features.

    Call arguments:
        inputs: float tensor `(batch, height, width, 3)` of the preset's size,
            scaled as `clip_image_converter` does.
        training: bool. Whether layers behave as in training.

    Returns:
        A tensor `(batch, projection_dim)` of the compute dtype.

    Raises:
        ValueError: If the images have another size.

    Example:
    >>> import keras_hub
    >>> tower = keras_hub.models.CLIPVisionEncoder(
    ...     8, 16, 1, 2, 32, image_shape=(16, 16, 3)
    ... )
    >>> encoder = keras_mla.encoders.CLIPImageTower(tower, projection_dim=4)
    >>> tuple(encoder(np.zeros((2, 16, 16, 3), "float32")).shape)
    (2, 4)

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
        tower: `keras_hub.models.CLIPTextEncoder`.
        projection_dim: int. Width of the features.

    Call arguments:
        inputs: int tensor `(batch, tokens)`, or a dict that holds one as
            `"token_ids"`, such as `clip_tokenizer` returns.
        training: bool. Whether layers behave as in training.

    Returns:
        A tensor `(batch, projection_dim)` of the compute dtype.

    Raises:
        ValueError: If a dict has no `"token_ids"`.

    Example:
    >>> import keras_hub
    >>> tower = keras_hub.models.CLIPTextEncoder(
    ...     50, 16, 16, 1, 2, 32, max_sequence_length=8
    ... )
    >>> encoder = keras_mla.encoders.CLIPTextTower(tower, projection_dim=4)
    >>> tuple(encoder(np.ones((2, 8), "int32")).shape)
    (2, 4)

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
