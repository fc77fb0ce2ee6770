import keras

from keras_mla.models.missing.correlation import CorrelatedModel


@keras.saving.register_keras_serializable(package="keras_mla")
class DCCA(CorrelatedModel):
    r"""Deep canonical correlation analysis.

    A network $p_m$ for each modality follows its encoder: two blocks of
    Dense, BatchNormalization and ReLU, and a linear Dense of width k. Encoders
    and networks learn projections $z_m = p_m(f_m)$ that are correlated between
    modalities, and a linear head classifies them:

    $$L = \mathrm{CE}(g([\mathrm{sg}(z_1); \dots; \mathrm{sg}(z_M)]), y)
      - \sum_{m < n} \|T_{mn}\|_F^2, \qquad
      T = L_m^{-1} S_{mn} L_n^{-T}, \quad L_m L_m^T = S_{mm} + r I,$$

    with $\mathrm{sg}$ a stopped gradient and $S$ covariances over the samples
    of a batch that have both modalities. The singular values of $T$ are the
    canonical correlations.

    The paper first trains the projections and then a linear classifier. Here
    one update of each batch has both losses. No label reaches the projections
    through the stopped gradient, and the head follows them, so every epoch
    ends with a usable prediction. The history holds minus the correlations as
    `loss` less `fused_loss`, regularisers aside.

    A batch needs at least 2k rows. Arrays, and data sets that tell their batch
    size, are checked before training. A pair of modalities with fewer than 2k
    common samples in a batch, such as in a smaller last batch, is left out of
    the batch's loss. If most modalities are missing, use large batches: if no
    sample has two modalities, the projections stay at random.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
            There must be at least two.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        width: int. Width k of the projections. Defaults to `10`.
        hidden: int. Width of each network's hidden layers. Defaults to `256`.
        smooth: bool. Whether correlations are squared. If not, the loss has
            their sum, as in the paper; with three or more modalities it may
            stay where the signs of pairs contradict each other. Defaults to
            `True`.
        ridge: float > 0. The number $r$. Defaults to `1e-3`.
        **kwargs: `impute`, as for `JointModel`, for the projections; `task`,
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
        ValueError: If an argument is out of its range, there are fewer than
            two modalities, a batch has too few rows, replicas share a batch,
            or encoders, head or inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.DCCA(encoders, 3, width=2, hidden=8)
    >>> model.compile(
    ...     optimizer="adam",
    ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ... )
    >>> rng = np.random.default_rng(0)
    >>> x = {name: rng.normal(size=(8, 4)) for name in encoders}
    >>> history = model.fit(x, np.zeros(8, "int32"), verbose=0)

    Reference:
        Andrew et al., "Deep Canonical Correlation Analysis", ICML 2013,
        section 3.
    """
