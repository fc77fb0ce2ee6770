from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_mla.backend import distribution
from keras_mla.core.batch import Batch
from keras_mla.core.losses import MeanLoss
from keras_mla.core.update import Outputs, Update
from keras_mla.models.missing.correlation import (
    CorrelatedModel,
    dense_network,
)


@keras.saving.register_keras_serializable(package="keras_mla")
class DCCAE(CorrelatedModel):
    r"""Deep canonically correlated autoencoders.

    As in deep canonical correlation analysis, a network $p_m$ for each
    modality follows its encoder, and learns projections $z_m = p_m(f_m)$ that
    are correlated between modalities. A mirrored network $q_m$ also
    reconstructs from $z_m$ what $p_m$ sees:

    $$L = \mathrm{CE}(g([\mathrm{sg}(z_1); \dots; \mathrm{sg}(z_M)]), y)
      - \sum_{m < n} \|T_{mn}\|_F^2
      + w \sum_m \mathrm{MSE}(q_m(z_m), \mathrm{sg}(f_m)),$$

    with $T_{mn}$ the whitened covariance of $z_m$ and $z_n$, whose singular
    values are the canonical correlations, and $\mathrm{sg}$ a stopped
    gradient. The mean squared error is over the samples that have the
    modality.

    The paper first trains the projections and then a linear classifier. Here
    one update of each batch has all losses. No label reaches the projections
    through the stopped gradient, and the head follows them, so every epoch
    ends with a usable prediction.

    A batch needs at least 2k rows. Arrays, and data sets that tell their batch
    size, are checked before training. A pair of modalities with fewer than 2k
    common samples in a batch, such as in a smaller last batch, is left out of
    the batch's loss.

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
        ridge: float > 0. What is added to variances. Defaults to `1e-3`.
        weight: float >= 0. The weight $w$. Defaults to `1e-3`.
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
    >>> model = keras_mla.models.DCCAE(encoders, 3, width=2, hidden=8)
    >>> x = {"image": np.ones((2, 4)), "text": None}
    >>> model.predict(x, verbose=0).shape
    (2, 3)

    Reference:
        Wang et al., "On Deep Multi-View Representation Learning", ICML 2015,
        section 2.4.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        width: int = 10,
        hidden: int = 256,
        smooth: bool = True,
        ridge: float = 1e-3,
        weight: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            encoders, head, feature_dim, width, hidden, smooth, ridge, **kwargs
        )
        if not weight >= 0:
            raise ValueError(
                f"`weight` must be at least 0. Received: weight={weight}"
            )
        self.weight = float(weight)
        self.decoders: dict[str, keras.layers.Layer] = {}

    def build_head(self, widths: dict[str, int]) -> None:
        """Makes networks and decoders, and builds the head."""
        super().build_head(widths)
        self.decoders = {
            name: dense_network(
                self.width, self.hidden, size, f"{name}_decoder"
            )
            for name, size in widths.items()
        }

    def variables_of(self, name: str) -> list:
        """Returns the variables of a modality's encoder and networks."""
        decoder = self.decoders.get(name)
        own = [] if decoder is None else decoder.variables
        return [*super().variables_of(name), *own]

    def updates(self) -> list[Update]:
        """Returns one update of all layers, by three losses."""
        losses = ("fused", "correlation", "reconstruction")
        return [Update(self.modalities, (self,), losses)]

    def update_losses(
        self,
        update: Update,
        outputs: Outputs,
        losses: dict[str, MeanLoss],
        batch: Batch,
    ) -> list[MeanLoss]:
        """Returns the losses of head, correlations and reconstruction."""
        first = super().update_losses(update, outputs, losses, batch)
        total = sum(
            self._error(name, projection, outputs.features[name], batch)
            for name, projection in zip(
                self.modalities, outputs.kept, strict=True
            )
        )
        size = batch.samples(self.modalities[0])
        return [*first, MeanLoss(self.weight * total, size)]

    def _error(
        self, name: str, projection: Any, feature: Any, batch: Batch
    ) -> Any:
        """Returns a modality's mean squared error of reconstruction."""
        found = self.decoders[name](projection, training=batch.training)
        target = ops.stop_gradient(ops.cast(feature, "float32"))
        errors = ops.mean(ops.square(ops.cast(found, "float32") - target), 1)
        return distribution.global_mean(errors, batch.present(name))

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {**super().get_config(), "weight": self.weight}
