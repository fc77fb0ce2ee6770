import keras

from keras_mla.core.joint import JointModel


@keras.saving.register_keras_serializable(package="keras_mla")
class ConcatFusion(JointModel):
    r"""Joint training on the concatenation of the modalities' features.

    $$z = g([f_1; \dots; f_M]), \qquad z_m = W_m f_m + b / M$$

    where $W_m$ are the rows of a `Dense` head that belong to modality $m$, so
    that $z = \sum_m z_m$. A head of several layers has no such slices: its
    unimodal score is computed from $f_m$ with zeros for the other modalities.
    The features of absent modalities are zeros too. Widths may differ.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
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
    >>> model = keras_mla.models.ConcatFusion(encoders, head=3)
    >>> tuple(model.head.kernel.shape)
    (16, 3)

    Reference:
        Peng et al., "Balanced Multimodal Learning via On-the-fly Gradient
        Modulation", CVPR 2022, section 3.1 (the slices of the head).
    """
