from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.core.batch import Batch
from keras_mla.core.late import LateModel
from keras_mla.core.losses import MeanLoss
from keras_mla.core.update import Outputs, Update
from keras_mla.layers.fusion import AdditiveFusion, Fusion


def total_correlation_loss(
    logits: Sequence[Any], labels: Any, weight: Any
) -> Any:
    r"""Returns minus a lower bound of the total correlation, in nats.

    $$L = -\sum_i w_i \sum_m z_{m,i}[y_i] + \log \frac1C \sum_c
      \prod_m \sum_j w_j \exp z_{m,j}[c], \qquad \sum_i w_i = 1.$$

    The second term is over all combinations of one sample's modality with
    another sample's, and takes O(M B C) steps: sums over samples come first.

    Args:
        logits: Tensors of shape `(batch, classes)`, one for each modality, with
            zeros for samples that lack it.
        labels: Tensor of shape `(batch, classes)`: one-hot labels, or
            probabilities.
        weight: Tensor of shape `(batch,)`, at least 0. It need not sum to one.

    Returns:
        Scalar, float32; zero if all weights are zero.

    Reference:
        Yu et al., "Multimodal Classification via Total Correlation
        Maximization", ICLR 2026.
    """
    weight = ops.cast(weight, "float32")
    total = ops.sum(weight)
    some = total > 0
    share = weight / ops.where(some, total, ops.ones_like(total))
    # What counts for nothing has no logarithm.
    counted = share > 0
    log_share = ops.log(ops.where(counted, share, ops.ones_like(share)))
    counted, log_share = counted[:, None], log_share[:, None]
    labels = ops.cast(labels, "float32")
    right, every = 0.0, 0.0
    for z in logits:
        z = ops.where(counted, ops.cast(z, "float32"), 0.0)
        right = right + ops.sum(share * ops.sum(labels * z, axis=1))
        # Not minus infinity, whose gradients are NaN.
        weighted = ops.where(counted, z + log_share, -1e30)
        every = every + ops.logsumexp(weighted, axis=0)
    loss = ops.logsumexp(every) - np.log(logits[0].shape[1]) - right
    return ops.where(some, loss, ops.zeros_like(loss))


@keras.saving.register_keras_serializable(package="keras_mla")
class TCMax(LateModel):
    r"""Joint training by total correlation maximization.

    Each modality has its own head, logits are added, and one loss serves all:

    $$z_m = g_m(f_m), \qquad z = \sum_m z_m, \qquad
      L = -\frac1B \sum_i z_i[y_i] + \log \sum_c \prod_m \sum_j
      \exp z_{m,j}[c] - M \log B - \log C.$$

    Minus L is a lower bound of the total correlation of modalities and label.
    The loss tells real samples from those that one would get by mixing the
    modalities of different samples. An absent modality adds nothing: its
    logits are zeros. Of the compiled loss, only which class it ignores counts
    in training; the loss of the fused prediction is reported as `fused_loss`.

    The loss is no sum over rows: replicas cannot share a batch, and its value
    depends on the size of batches.

    Its published gain is large, and no independent study has confirmed it.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits. Each other
            modality gets a new head like it.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        fusion: `Fusion` layer, for predictions alone. Defaults to
            `AdditiveFusion()`.
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
        ValueError: If replicas share a batch, or encoders, head or inputs do
            not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.TCMax(encoders, head=3)
    >>> x = {"image": np.ones((2, 4)), "text": np.ones((2, 4))}
    >>> model.predict(x, verbose=0).shape
    (2, 3)

    Reference:
        Yu et al., "Multimodal Classification via Total Correlation
        Maximization", ICLR 2026.
    """

    tasks = ("single_label",)
    whole_batch = "its loss mixes the modalities of different samples"

    def default_fusion(self, task: str) -> Fusion:
        """Returns `AdditiveFusion`."""
        return AdditiveFusion()

    def updates(self) -> Sequence[Update]:
        """Returns one update of all layers, by the total correlation."""
        return [
            Update(
                self.modalities,
                (self,),
                ("total_correlation",),
                logs=("total_correlation",),
            )
        ]

    def update_losses(
        self,
        update: Update,
        outputs: Outputs,
        losses: dict[str, MeanLoss],
        batch: Batch,
    ) -> list[MeanLoss]:
        """Returns minus the bound of the total correlation."""
        return [self._loss(outputs, batch)]

    def update_logs(
        self, update: Update, outputs: Outputs, batch: Batch
    ) -> dict[str, MeanLoss]:
        """Returns the bound of the total correlation, in nats."""
        loss = self._loss(outputs, batch)
        return {"total_correlation": loss._replace(mean=-loss.mean)}

    def _loss(self, outputs: Outputs, batch: Batch) -> MeanLoss:
        self.check_paired(batch)
        first = self.modalities[0]
        logits = []
        for name in self.modalities:
            z, present = outputs.logits[name], batch.present(name)
            if present is not None:
                z = ops.where(present[:, None], z, ops.zeros_like(z))
            logits.append(z)
        labels, counted = self._labels(batch.labels[first], logits[0].shape[1])
        if batch.presence is not None:
            counted = ops.logical_and(counted, batch.known())
        weight = ops.cast(counted, "float32")
        given = batch.sample_weight[first]
        if given is not None:
            given = ops.reshape(ops.cast(given, "float32"), (-1,))
            weight = ops.where(counted, given, ops.zeros_like(given))
        loss = total_correlation_loss(logits, labels, weight)
        return MeanLoss(loss, ops.sum(ops.cast(counted, "float32")))

    def _labels(self, labels: Any, classes: int) -> tuple[Any, Any]:
        """Returns one-hot labels, and which samples have one."""
        if len(labels.shape) == 2 and labels.shape[1] == classes:
            return labels, ops.ones_like(labels[:, 0], dtype="bool")
        labels = ops.cast(ops.reshape(labels, (-1,)), "int32")
        known = ops.ones_like(labels, dtype="bool")
        ignored = getattr(self.loss, "ignore_class", None)
        if ignored is not None:
            known = labels != ignored
            labels = ops.where(known, labels, ops.zeros_like(labels))
        return ops.one_hot(labels, classes), known
