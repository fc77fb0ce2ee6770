import keras

from keras_mla.core.late import MultiLossModel


@keras.saving.register_keras_serializable(package="keras_mla")
class MultiLossFusion(MultiLossModel):
    r"""Joint training with a loss for each modality besides the joint loss.

    $$z_m = g_m(f_m), \qquad z = \sum_m z_m, \qquad
      L = \mathrm{CE}(z, y) + \sum_m \mathrm{CE}(z_m, y)$$

    This is a plain control: the modalities learn together, and none can be
    lazy. Sums and losses are over the modalities that a sample has.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits. Each other
            modality gets a new head like it.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        fusion: `Fusion` layer. Defaults to `AdditiveFusion()`; for regression,
            to `InverseVarianceFusion()`, which averages until it is
            calibrated.
        **kwargs: `task`, `allow_nan`, `table` and `modality_dropout`, as for
            `MultimodalModel`; `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality, and optionally `"presence"`, bool of
            shape `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Raises:
        TypeError: If an encoder or `fusion` is of a wrong type.
        ValueError: If encoders, head or inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.MultiLossFusion(encoders, head=3)
    >>> x = {"image": np.ones((2, 4)), "text": np.ones((2, 4))}
    >>> model.predict(x, verbose=0).shape
    (2, 3)

    Reference:
        Wang et al., "What Makes Training Multi-Modal Classification Networks
        Hard?", CVPR 2020, Eq. 3 with all weights 1.
    """
