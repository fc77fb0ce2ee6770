"""The base class of joint methods whose loss has several terms."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_mla.core.batch import Batch
from keras_mla.core.joint import JointModel
from keras_mla.core.losses import MeanLoss
from keras_mla.core.update import Outputs, Update

# A term that counts no sample.
NOTHING = MeanLoss(0.0, 0.0)


def counted_mean(values: Any, counted: Any) -> MeanLoss:
    """Returns the mean of counted values.

    Args:
        values: Tensor of shape `(batch, n)`, zero where it is not counted.
        counted: Tensor of the same shape and dtype: ones where a value counts,
            else zeros.
    """
    number = ops.sum(counted)
    return MeanLoss(ops.sum(values) / ops.maximum(number, 1), number)


def check_weight(name: str, weight: float) -> float:
    """Returns the weight of a loss, and raises unless it is at least 0."""
    if not weight >= 0:
        raise ValueError(
            f"`{name}` must be at least 0. Received: {name}={weight}"
        )
    return float(weight)


class TermsModel(JointModel):
    """Base class of joint methods whose loss has several terms.

    A subclass names its terms in `terms_named`, and computes them in `terms`.
    Each is added to the loss of the prediction with its weight, and reported
    without it, as `<term>_loss`.
    """

    # Names of the terms of the loss besides the loss of the prediction.
    terms_named: tuple[str, ...] = ()

    def terms(
        self, outputs: Outputs, batch: Batch
    ) -> dict[str, tuple[float, MeanLoss]]:
        """Returns the weight and the value of each term in `terms_named`."""
        raise NotImplementedError

    def updates(self) -> Sequence[Update]:
        """Returns one update of all layers, by all terms of the loss."""
        logs = [f"{name}_loss" for name in self.terms_named]
        losses = ("fused", *self.terms_named)
        return [Update(self.modalities, (self,), losses, logs=tuple(logs))]

    def update_losses(
        self,
        update: Update,
        outputs: Outputs,
        losses: dict[str, MeanLoss],
        batch: Batch,
    ) -> list[MeanLoss]:
        """Returns the loss of the prediction, and the weighted terms."""
        fused = self.fused_loss(outputs, batch)
        found = self.terms(outputs, batch)
        weighted = [
            MeanLoss(weight * ops.cast(term.mean, fused.mean.dtype), term.count)
            for weight, term in (found[name] for name in self.terms_named)
        ]
        return [fused, *weighted]

    def update_logs(
        self, update: Update, outputs: Outputs, batch: Batch
    ) -> dict[str, MeanLoss]:
        """Returns each term without its weight, as `<term>_loss`."""
        terms = self.terms(outputs, batch).items()
        return {f"{name}_loss": term for name, (_, term) in terms}
