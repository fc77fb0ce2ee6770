from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.backend import kernels
from keras_mla.core.batch import Batch
from keras_mla.core.late import LateModel
from keras_mla.core.losses import MeanLoss
from keras_mla.core.sample_ids import SampleIds
from keras_mla.core.update import Outputs, Update
from keras_mla.layers.fusion import EnergyFusion, Fusion


@keras.saving.register_keras_serializable(package="keras_mla")
class QMF(SampleIds, LateModel):
    r"""Quality-aware multimodal fusion.

    Each modality has its own head $g_m$. Its logits are weighted by an
    energy, and the energies learn to be low for samples that have been hard:

    $$z_m = g_m(f_m), \qquad c_m = \tfrac1{10} \log \sum_j \exp z_{m,j},
      \qquad z = \sum_m \mathrm{sg}(c_m)\, z_m,$$
    $$L = \mathrm{CE}(z, y) + \sum_m \mathrm{CE}(z_m, y)
      + w \sum_m R_m,$$

    with $\mathrm{sg}$ a stopped gradient. $R_m$ is the mean, over pairs of
    neighbours $i, j$ in a batch (the first sample follows the last), of

    $$\max\big(0,\ \mathrm{sign}(\kappa_i - \kappa_j)(c_{m,i} - c_{m,j})
      + |\kappa_i - \kappa_j|\big),$$

    where $\kappa$ is a training sample's accumulated cross-entropy for
    modality $m$, this batch included, scaled to run from 0 to 1 over all
    `num_samples`.

    Samples therefore need an identity: `x["sample_id"]`, ints of shape
    `(batch,)` from 0 to `num_samples - 1`. Only training uses the ids:
    evaluation and prediction need none, and the loss of an evaluation has no
    $R_m$. The accumulated losses are a weight of the model, `loss_history`, so
    that each checkpoint holds them. Out-of-range ids are left out of the
    history and raise an error: before training if `fit` gets arrays, at the
    end of the epoch otherwise.

    With `presence`, sums are over the modalities that a sample has, and a pair
    counts for a modality if both samples have it.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits. Each other
            modality gets a new head like it.
        num_samples: int. The number of training samples.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        rank_weight: float >= 0. The weight $w$. Defaults to `0.1`.
        fusion: `Fusion` layer. Its weights are the confidences $c_m$. Defaults
            to `EnergyFusion()`.
        **kwargs: `task`, `allow_nan`, `table` and `modality_dropout`, as for
            `MultimodalModel`; `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality; in training also `"sample_id"`, ints of
            shape `(batch,)`; optionally `"presence"`, bool of shape
            `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Raises:
        TypeError: If an encoder or `fusion` is of a wrong type.
        ValueError: If an argument or an id is out of its range, ids are
            missing in training, or encoders, head or inputs do not fit
            together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.QMF(encoders, head=3, num_samples=2)
    >>> model.compile(
    ...     optimizer="sgd",
    ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ... )
    >>> x = {"image": np.ones((2, 4)), "text": np.ones((2, 4))}
    >>> x["sample_id"] = np.arange(2)
    >>> history = model.fit(x, np.zeros(2, "int32"), verbose=0)

    Reference:
        Zhang et al., "Provable Dynamic Fusion for Low-Quality Multimodal
        Data", ICML 2023, section 4.
    """

    tasks = ("single_label", "multi_label")
    remembered = "a history of each training sample's loss"

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        num_samples: int,
        feature_dim: int | None = None,
        rank_weight: float = 0.1,
        fusion: Fusion | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, fusion, **kwargs)
        self.count_ids(num_samples)
        if not rank_weight >= 0:
            raise ValueError(
                "`rank_weight` must be at least 0. "
                f"Received: rank_weight={rank_weight}"
            )
        # === Config ===
        self.rank_weight = float(rank_weight)
        # === State ===
        self.loss_history = self.add_weight(
            shape=(num_samples, len(self.modalities)),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
            name="loss_history",
        )
        self.make_strays()

    def default_fusion(self, task: str) -> Fusion:
        """Returns `EnergyFusion`."""
        return EnergyFusion(task)

    # === Training ===

    def updates(self) -> Sequence[Update]:
        """Returns one update of all layers, by fused and unimodal losses."""
        losses = ("fused", *self.modalities)
        return [Update(self.modalities, (self,), losses)]

    def update_losses(
        self,
        update: Update,
        outputs: Outputs,
        losses: dict[str, MeanLoss],
        batch: Batch,
    ) -> list[MeanLoss]:
        """Returns the fused loss plus the rank term, and unimodal losses."""
        fused = self.fused_loss(outputs, batch)
        if batch.training:
            rank = ops.sum(self.rank_terms(outputs, batch))
            rank = ops.cast(self.rank_weight * rank, fused.mean.dtype)
            fused = fused._replace(mean=fused.mean + rank)
        return [fused, *losses.values()]

    def rank_terms(self, outputs: Outputs, batch: Batch) -> Any:
        """Returns R of each modality, float32 of shape `(modalities,)`.

        Args:
            outputs: `Outputs` of the update's forward pass.
            batch: The `Batch`, with ids of its samples.
        """
        history, _ = self._gathered(outputs, batch)
        low = ops.min(history, axis=0)
        spread = ops.max(history, axis=0) - low
        scaled = (history - low) / ops.where(
            spread > 0, spread, ops.ones_like(spread)
        )
        hardness = ops.take(scaled, self.ids_of(batch)[0], axis=0)
        # Without a stopped gradient: R trains the confidence.
        confidence = self.fusion_weights(outputs, batch.presence)
        gap = hardness - _following(hardness, batch)
        excess = confidence - _following(confidence, batch)
        terms = ops.relu(ops.sign(gap) * excess + ops.abs(gap))
        if batch.presence is None:
            return ops.mean(terms, axis=0)
        both = ops.logical_and(
            batch.presence, _following(batch.presence, batch)
        )
        counted = ops.cast(both, "float32")
        return ops.sum(terms * counted, axis=0) / ops.maximum(
            ops.sum(counted, axis=0), 1
        )

    def modify_gradients(
        self, update: Update, gradients: list, outputs: Outputs, batch: Batch
    ) -> tuple[list, list]:
        """Leaves gradients unchanged, and adds the batch to the history."""
        history, strays = self._gathered(outputs, batch)

        def remember(taken: Any | None) -> None:
            kernels.assign_where(taken, self.loss_history, history)
            kernels.assign_where(taken, self.strays, self.strays + strays)

        return gradients, [remember]

    def _gathered(self, outputs: Outputs, batch: Batch) -> tuple[Any, Any]:
        """Returns the history with this batch, and its number of bad ids."""
        ids, inside = self.ids_of(batch)
        likelihood = self.task.log_likelihood
        losses = ops.stack(
            [
                -likelihood(batch.labels[name], outputs.logits[name])
                for name in self.modalities
            ],
            axis=1,
        )
        counted = inside[:, None]
        if batch.presence is not None:
            counted = ops.logical_and(counted, batch.presence)
        losses = ops.where(counted, losses, ops.zeros_like(losses))
        gathered = ops.segment_sum(
            ops.stop_gradient(losses), ids, num_segments=self.num_samples
        )
        strays = ops.sum(ops.cast(ops.logical_not(inside), "int32"))
        return self.loss_history + gathered, strays

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {**super().get_config(), "rank_weight": self.rank_weight}


def _following(values: Any, batch: Batch) -> Any:
    """Returns each sample's successor; the last one's is the first one."""
    if batch.counted is None:
        return ops.roll(values, -1, axis=0)
    rows = ops.arange(1, ops.shape(values)[0] + 1)
    # Added rows stand at the end. (In several processes they stand at the
    # end of each part, and pairs across them do not count.)
    samples = ops.sum(ops.cast(batch.counted, rows.dtype))
    following = ops.where(rows < samples, rows, ops.zeros_like(rows))
    return ops.take(values, following, axis=0)
