"""Updates and stages of training, and the outputs of a pass."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_mla.core.losses import MeanLoss


@dataclasses.dataclass
class Update:
    """One optimizer step of a batch.

    Attributes:
        modalities: Names of the modalities that it encodes.
        layers: Layers whose trainable variables it moves.
        losses: Names of the losses whose sum it minimises, one for each loss
            that `update_losses` returns. Defaults to the experts.
        name: Name of the update, different from the names of the stage's other
            updates. Defaults to the modality, or `"joint"` for several.
        experts: Names of the experts whose logits its pass computes and whose
            loss and metrics it reports. Defaults to the modalities.
        logs: Names of the values that `update_logs` returns.
        groups: Tuples of names of losses that are differentiated together, for
            a method that combines gradients: `combine_gradients` gets one
            gradient for each group. Defaults to each loss by itself.
        paired: bool. Whether it needs all modalities of the same samples. If
            so, a batch of unpaired data skips it.
        variables: list of the trainable variables of the layers, each once.
    """

    modalities: tuple[str, ...]
    layers: tuple[keras.layers.Layer, ...]
    losses: tuple[str, ...] = ()
    name: str = ""
    experts: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    paired: bool = False
    variables: list = dataclasses.field(init=False)
    # The step fills both when it needs them: the modality of each variable of
    # an encoder, by the variable's id, and the variables that a pass itself
    # moves.
    owners: dict[int, str] | None = dataclasses.field(default=None, init=False)
    moving: list | None = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        self.modalities = tuple(self.modalities)
        self.experts = tuple(self.experts) or self.modalities
        self.losses = tuple(self.losses) or self.experts
        self.logs = tuple(self.logs)
        self.groups = tuple(self.groups) or tuple((n,) for n in self.losses)
        if not self.name:
            single = len(self.modalities) == 1
            self.name = self.modalities[0] if single else "joint"
        found = {
            id(v): v for layer in self.layers for v in layer.trainable_variables
        }
        self.variables = list(found.values())


@dataclasses.dataclass
class Stage:
    """The updates that batches make during some epochs.

    Attributes:
        updates: The updates, in order.
        epochs: int. The number of epochs, or `None` for all epochs that follow.
    """

    updates: Sequence[Update]
    epochs: int | None = None


class Outputs(NamedTuple):
    """The outputs of a forward pass.

    Attributes:
        features: dict of each modality's features, `(batch, features)`.
        logits: dict of each expert's logits, float32 of shape
            `(batch, units)`.
        extra: dict of the tensors that `unimodal_pass` or `expert_pass` kept,
            by expert.
        fused: The fused logits `(batch, units)`, for a method that computes
            them in its `decode`; else `None`.
        kept: A structure of tensors that belongs to no expert, such as a
            reconstruction, for losses and logs.
        means: dict of the means that `batch_means` asks for, over the whole
            batch. It is filled when gradients are computed.
    """

    features: dict[str, Any]
    logits: dict[str, Any]
    extra: dict[str, Any]
    fused: Any | None = None
    kept: Any = ()
    means: dict[str, Any] = {}


class Pass(NamedTuple):
    """The forward pass of an update, with its losses.

    Attributes:
        losses: The update's losses.
        experts: dict of each expert's own loss.
        outputs: The outputs of the pass.
        logs: dict of the method's own logs.
        penalties: The regularisers, means over rows.
    """

    losses: list[MeanLoss]
    experts: dict[str, MeanLoss]
    outputs: Outputs
    logs: dict[str, MeanLoss]
    penalties: Sequence[MeanLoss] = ()

    @property
    def regularised(self) -> list[MeanLoss]:
        """The update's losses, the first with the regularisers."""
        first, *others = self.losses
        for penalty in self.penalties:
            first = first._replace(mean=first.mean + penalty.mean)
        return [first, *others]


@dataclasses.dataclass
class Step:
    """An update that was made.

    Attributes:
        update: The update.
        result: The update's pass.
        taken: Bool scalar: did the optimizer move? `None` if it always does.
    """

    update: Update
    result: Pass
    taken: Any | None = None
