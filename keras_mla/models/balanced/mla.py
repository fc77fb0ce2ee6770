import keras

from keras_mla.models.balanced.alternating import AlternatingModel


@keras.saving.register_keras_serializable(package="keras_mla")
class MLA(AlternatingModel):
    """Multimodal learning by alternating unimodal adaptation.

    Each batch trains one modality at a time: modality m is encoded, mapped to
    logits by the head that all modalities share, and its own loss moves its
    encoder and the head, nothing else. The head's gradient is projected by a
    `GradientProjector`, so that a step for one modality undoes little of what
    the head does for the other modalities. If the classes outnumber the batch,
    and the kernel has no regulariser, the projection costs no more than a
    product of P and the batch. A prediction fuses the unimodal
    logits, each weighted by how certain it is.

    An optimizer with moments, such as Adam, moves the moments of an encoder
    only in the encoder's own updates, and the moments of the head in every
    update. `iterations` counts batches, and so do learning-rate schedules.
    Bias corrections are therefore exact for encoders; for the head they assume
    one update per batch.

    The loss must depend on the head's kernels by the logits alone. To punish
    large kernels, give the head's layers a `kernel_regularizer`.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. The order of the
            dict is the order in which modalities are trained.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings its
            features to this width, so that encoders may differ in width. The
            projection is trained with the encoder.
        projector: `GradientProjector`. Each Dense kernel of the head gets a
            projector with its settings. `None` trains without projection.
            Defaults to `"auto"`, which means `GradientProjector()`.
        fusion: `Fusion` layer. Defaults to `EntropyFusion()`; for regression,
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
        TypeError: If an encoder, `projector` or `fusion` is of a wrong type.
        ValueError: If encoders, head or inputs do not fit together.

    Example:
    >>> def encoder(size):
    ...     return keras.Sequential(
    ...         [keras.Input((size,)), keras.layers.Dense(32, "relu")]
    ...     )
    >>> model = keras_mla.MLA(
    ...     encoders={"image": encoder(64), "text": encoder(20)}, head=3
    ... )
    >>> model.compile(
    ...     optimizer="adam",
    ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ...     metrics=["accuracy"],
    ... )
    >>> x = {"image": np.zeros((8, 64)), "text": np.zeros((8, 20))}
    >>> history = model.fit(x, np.zeros(8, "int32"), verbose=0)
    >>> model.predict(x, verbose=0).shape
    (8, 3)

    Reference:
        Zhang et al., "Multimodal Representation Learning by Alternating
        Unimodal Adaptation", CVPR 2024, Algorithm 1.
    """
