from typing import Any

import keras

from keras_mla.core import checks
from keras_mla.core.joint import JointModel


@keras.saving.register_keras_serializable(package="keras_mla")
class SumFusion(JointModel):
    r"""Joint training on the sum of the modalities' features.

    The head is shared:

    $$z = g\Big(\sum_m f_m\Big), \qquad z_m = g(f_m),$$

    which for a `Dense` head is $z = W \sum_m f_m + b$ and $z_m = W f_m + b$.
    (With a matrix $W_m$ per modality the method would be `ConcatFusion`.)
    Absent modalities add nothing to the sum.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`, all of one width.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width, so that encoders may differ in width.
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
        ValueError: If encoders, head or inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.SumFusion(encoders, head=3)
    >>> x = {"image": np.ones((2, 4)), "text": np.ones((2, 4))}
    >>> model.predict(x, verbose=0).shape
    (2, 3)

    Reference:
        Zhang et al., "Multimodal Representation Learning by Alternating
        Unimodal Adaptation", CVPR 2024, section 4.1 ("Sum").
    """

    def build_head(self, widths: dict[str, int]) -> None:
        """Raises unless all features have one width and can be added."""
        checks.check_widths(widths)

    def join(self, features: dict[str, Any], training: bool | None) -> Any:
        """Applies the head to the sum of features."""
        return self.head(sum(features.values()), training=training)
