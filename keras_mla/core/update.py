"""What a batch makes of a model: updates, and what their passes yield."""

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
        losses: Names of the losses whose sum it minimises, as many as
            `update_losses` returns. Defaults to a loss for each modality.
        name: Name of the update, different from those of the model's others.
            Defaults to the modality, or `"joint"` for several.
        experts: Names of the experts whose logits its pass computes and whose
            loss and metrics it reports. Defaults to the modalities.
        logs: Names of the values that `update_logs` returns.
        paired: bool. Whether it needs all modalities of the same samples. A
            batch of unpaired data then skips it.
        variables: The trainable variables of the layers, each once.
    """

    modalities: tuple[str, ...]
    layers: tuple[keras.layers.Layer, ...]
    losses: tuple[str, ...] = ()
    name: str = ""
    experts: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    paired: bool = False
    variables: list = dataclasses.field(init=False)
    # Filled by the step when they are needed: the modality of each variable
    # of an encoder, by its id, and the variables that a pass moves by itself.
    owners: dict[int, str] | None = dataclasses.field(default=None, init=False)
    moving: list | None = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        self.modalities = tuple(self.modalities)
        self.losses = tuple(self.losses) or self.modalities
        self.logs = tuple(self.logs)
        self.experts = tuple(self.experts) or self.modalities
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
        epochs: int. The number of epochs, or `None` for all that follow.
    """

    updates: Sequence[Update]
    epochs: int | None = None


class Outputs(NamedTuple):
    """What a forward pass yields.

    Attributes:
        features: dict of each modality's features, `(batch, features)`.
        logits: dict of each expert's logits, float32 of shape
            `(batch, units)`.
        extra: dict of whatever else `unimodal_pass` or `expert_pass` kept.
        fused: The fused logits `(batch, units)`, for a method that computes
            them in its `forward_pass`; else `None`.
        kept: A structure of tensors that belongs to no expert, such as a
            reconstruction, for losses and logs.
    """

    features: dict[str, Any]
    logits: dict[str, Any]
    extra: dict[str, Any]
    fused: Any | None = None
    kept: Any = ()


class Pass(NamedTuple):
    """An update's forward pass with its losses.

    Attributes:
        losses: The update's losses.
        experts: dict of the own loss of each expert.
        outputs: What the pass yields.
        logs: dict of the method's own logs.
    """

    losses: list[MeanLoss]
    experts: dict[str, MeanLoss]
    outputs: Outputs
    logs: dict[str, MeanLoss]


@dataclasses.dataclass
class Step:
    """An update that was made.

    Attributes:
        update: The update.
        result: Its pass.
        taken: Bool scalar: did the optimizer move? `None` if it always does.
    """

    update: Update
    result: Pass
    taken: Any | None = None
