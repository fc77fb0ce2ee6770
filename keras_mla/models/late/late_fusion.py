import keras

from keras_mla.core.late import LateModel


@keras.saving.register_keras_serializable(package="keras_mla")
class LateFusion(LateModel):
    r"""Separate networks whose predictions are fused.

    Each modality has its own head $g_m$, loss and optimizer step:

    $$z_m = g_m(f_m), \qquad L_m = \mathrm{CE}(z_m, y), \qquad
      z = \frac1M \sum_m z_m,$$

    the mean of *logits* over the modalities that a sample has. Because nothing
    is shared, the computation is the same as training each modality by itself;
    `UnimodalEnsemble` relies on this. An absent modality counts in no loss and
    moves no weight. The model can be trained on unpaired data.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits. Each other
            modality gets a new head like it.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        fusion: `Fusion` layer. Defaults to `AverageFusion()`; for regression,
            to `InverseVarianceFusion()`.
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
    >>> model = keras_mla.models.LateFusion(encoders, head=3)
    >>> sorted(model.heads)
    ['image', 'text']

    Reference:
        Gunes and Piccardi, "Affect Recognition from Face and Body: Early
        Fusion vs. Late Fusion", SMC 2005.
    """
