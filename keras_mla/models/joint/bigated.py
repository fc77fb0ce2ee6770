from collections.abc import Mapping
from typing import Any

import keras

from keras_mla.core.checks import check_main
from keras_mla.core.joint import JointModel


@keras.saving.register_keras_serializable(package="keras_mla")
class BiGated(JointModel):
    r"""Joint training in which modalities gate another's features.

    With $y$ the main modality,

    $$z = g\Big(\prod_{x \ne y} \sigma(W_x f_x + b_x)
      \odot (W_y f_y + b_y)\Big).$$

    The paper has two modalities, and so one gate; with more modalities, each
    modality except $y$ contributes a gate. The features of an absent modality
    are zeros. For a unimodal score, the features of all other modalities are
    zeros.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        main: Name of the modality that the others gate. Defaults to the last
            one.
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
    >>> model = keras_mla.models.BiGated(encoders, head=3, main="image")
    >>> x = {"image": np.ones((2, 4)), "text": np.ones((2, 4))}
    >>> model.predict(x, verbose=0).shape
    (2, 3)

    Reference:
        Kiela et al., "Efficient Large-Scale Multi-Modal Classification",
        AAAI 2018, section 3.2 (bilinear-gated).
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
        self.gating = _Gating(self.main, name="gating")

    def build_head(self, widths: dict[str, int]) -> None:
        """Does nothing: the layers accept features of any width."""

    def join(self, features: dict[str, Any], training: bool | None) -> Any:
        """Multiplies the main modality's features by the others' gates."""
        return self.head(self.gating(features), training=training)

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {**super().get_config(), "main": self.main}


@keras.saving.register_keras_serializable(package="keras_mla")
class _Gating(keras.layers.Layer):
    """Multiplies one modality's mapped features by the others' gates.

    Args:
        main: Name of the modality that the others gate.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, main: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.main = main

    def build(self, features_shape: dict[str, tuple]) -> None:
        """Creates a mixing layer for each modality."""
        self.mixers = {
            name: keras.layers.Dense(
                features_shape[self.main][-1],
                activation=None if name == self.main else "sigmoid",
                dtype=self.dtype_policy,
            )
            for name in features_shape
        }
        for name, shape in features_shape.items():
            self.mixers[name].build(shape)

    def call(self, features: dict[str, Any]) -> Any:
        """Returns the product, `(batch, features of main)`."""
        product = self.mixers[self.main](features[self.main])
        for name, feature in features.items():
            if name != self.main:
                product = product * self.mixers[name](feature)
        return product

    def compute_output_shape(self, features_shape: dict[str, tuple]) -> tuple:
        """Returns the shape of the main modality's features."""
        return features_shape[self.main]

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "main": self.main}
