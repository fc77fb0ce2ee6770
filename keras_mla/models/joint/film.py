from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_mla.core.checks import check_main
from keras_mla.core.joint import JointModel


@keras.saving.register_keras_serializable(package="keras_mla")
class FiLM(JointModel):
    r"""Joint training in which modalities scale and shift another's features.

    With $y$ the main modality and $f_x$ the features of all other modalities,
    side by side,

    $$\gamma = W_\gamma f_x + b_\gamma, \quad \beta = W_\beta f_x + b_\beta,
      \qquad z = g(\gamma \odot f_y + \beta).$$

    In the paper, $x$ is one modality. $b_\gamma$ starts at 1, so that the main
    modality's features pass unchanged if nothing conditions them. The features
    of an absent modality are zeros. For a unimodal score, the features of all
    other modalities are zeros.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        main: Name of the modality that the others condition. Defaults to the
            last one.
        **kwargs: `impute`, as for `keras_mla.core.JointModel`; `task`,
            `allow_nan`, `table` and `modality_dropout`, as for
            `MultimodalModel`; `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality, and optionally `"presence"`, bool of
            shape `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Logits, float32 of shape `(batch, classes)`.

    Raises:
        TypeError: If an encoder is not a Keras layer.
        ValueError: If there are fewer than two modalities, `main` is not one
            of them, or encoders, head or inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.FiLM(encoders, head=3)
    >>> model.main
    'text'

    Reference:
        Perez et al., "FiLM: Visual Reasoning with a General Conditioning
        Layer", AAAI 2018, Eqs. 1 and 2.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        main: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        self.main = check_main(main, self.modalities)
        self.modulation = _Modulation(name="modulation")

    def build_head(self, widths: dict[str, int]) -> None:
        """Does nothing: the layers accept features of any width."""

    def join(self, features: dict[str, Any], training: bool | None) -> Any:
        """Conditions the main modality's features on all other features."""
        condition = ops.concatenate(
            [features[m] for m in self.modalities if m != self.main], axis=-1
        )
        conditioned = self.modulation(features[self.main], condition)
        return self.head(conditioned, training=training)

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {**super().get_config(), "main": self.main}


@keras.saving.register_keras_serializable(package="keras_mla")
class _Modulation(keras.layers.Layer):
    """Scales and shifts features, both computed from a condition."""

    # Do not rename this class: `.keras` files name its weights after it.

    def build(self, feature_shape: tuple, condition_shape: tuple) -> None:
        """Creates the scale and the shift."""
        policy = self.dtype_policy
        self.scale = keras.layers.Dense(
            feature_shape[-1], bias_initializer="ones", dtype=policy
        )
        self.shift = keras.layers.Dense(feature_shape[-1], dtype=policy)
        self.scale.build(condition_shape)
        self.shift.build(condition_shape)

    def call(self, feature: Any, condition: Any) -> Any:
        """Returns features of the shape of `feature`."""
        return self.scale(condition) * feature + self.shift(condition)

    def compute_output_shape(
        self, feature_shape: tuple, condition_shape: tuple
    ) -> tuple:
        """Returns the shape of the feature."""
        return feature_shape
