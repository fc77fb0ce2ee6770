"""The convention of a batch: modalities, presence, paired and unpaired labels.

`x` is a dict keyed by modality, with `presence` beside the modalities where
some are missing. `y` is one tensor, or a dict keyed by modality where each
modality has samples and labels of its own.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mla import training

RESERVED = ("presence", "sample_id")


@dataclasses.dataclass
class Batch:
    """One batch, checked and with absent rows out of the way.

    Attributes:
        inputs: dict of each modality's tensors. Rows of absent samples hold
            copies of present ones.
        labels: dict of each modality's labels.
        sample_weight: dict of each modality's weights, `None` without.
        presence: Bool tensor of shape `(batch, modalities)`, or `None`.
        paired: bool. Whether all modalities see the same samples.
        sample_id: Tensor of shape `(batch,)`, which samples these are, or
            `None` where `x` does not say.
        training: bool. Whether the batch is one to train on.
    """

    inputs: dict[str, Any]
    labels: dict[str, Any]
    sample_weight: dict[str, Any]
    presence: Any | None
    paired: bool
    sample_id: Any | None = None
    training: bool = True

    @classmethod
    def from_data(
        cls, modalities: Sequence[str], data: Any, training: bool = True
    ) -> "Batch":
        """Takes `(x, y)` or `(x, y, sample_weight)` as Keras passes it."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        inputs, presence = split_inputs(modalities, x)
        paired = not isinstance(y, dict)
        if not paired and presence is not None:
            raise ValueError(
                "x['presence'] and a dict `y` exclude each other: unpaired "
                "data name no absent samples, they leave them out."
            )
        labels, weights = split_targets(modalities, y, sample_weight)
        return cls(
            inputs,
            labels,
            weights,
            presence,
            paired,
            x.get("sample_id"),
            training,
        )

    def present(self, name: str) -> Any | None:
        """Bool `(batch,)` of one modality, `None` where all are present."""
        if self.presence is None:
            return None
        return self.presence[:, list(self.inputs).index(name)]

    def active(self, names: Sequence[str]) -> Any | None:
        """Whether any sample has any of these; `None` where all have all."""
        if self.presence is None:
            return None
        return sum(present_share(self.present(name)) for name in names) > 0

    def size(self, name: str) -> Any:
        """Number of rows of one modality."""
        return ops.shape(keras.tree.flatten(self.inputs[name])[0])[0]

    def count(self, name: str) -> Any:
        """Number of present samples of one modality."""
        present = self.present(name)
        if present is None:
            return self.size(name)
        return ops.sum(ops.cast(present, "float32"))


def split_inputs(
    modalities: Sequence[str], x: Any
) -> tuple[dict[str, Any], Any | None]:
    """Checks `x` and separates the modalities from `presence`.

    Returns:
        A dict of each modality's tensors, in the model's order, in which rows
        of absent samples hold copies of present ones (zeros where no sample
        is present); and `presence` as bool, or `None`.

    Raises:
        ValueError: If modalities are missing or unknown, or `presence` has
            another shape than `(batch, modalities)`.
    """
    if not isinstance(x, dict):
        raise ValueError(
            "Inputs must be a dict keyed by modality, such as "
            f"{{{', '.join(f'{m!r}: ...' for m in modalities)}}}. "
            f"Received: an object of type {type(x).__name__}"
        )
    missing = [name for name in modalities if name not in x]
    if missing:
        raise ValueError(
            f"The inputs lack {_plural('modality', missing)}. To use one "
            "modality alone, take `model.unimodal(name)`. Where only some "
            "samples lack a modality, pass any value for it and say so in "
            "x['presence'], a bool array of shape (batch, "
            f"{len(modalities)}). Received: keys {sorted(x)}"
        )
    unknown = [
        name for name in x if name not in modalities and name not in RESERVED
    ]
    if unknown:
        raise ValueError(
            f"The inputs have unknown {_plural('key', unknown)}. The model's "
            f"modalities are {list(modalities)}."
        )
    inputs = {name: x[name] for name in modalities}
    presence = x.get("presence")
    if presence is None:
        return inputs, None
    if len(presence.shape) != 2 or presence.shape[1] != len(modalities):
        raise ValueError(
            "x['presence'] must be a bool array of shape (batch, "
            f"{len(modalities)}), with a column for each of the modalities "
            f"{list(modalities)}. Received: shape {tuple(presence.shape)}"
        )
    for name, value in inputs.items():
        rows = keras.tree.flatten(value)[0].shape[0]
        counted = isinstance(rows, int) and isinstance(presence.shape[0], int)
        if counted and rows != presence.shape[0]:
            raise ValueError(
                f"x['presence'] has {presence.shape[0]} rows, but modality "
                f"{name!r} has {rows}. Presence is for samples that share "
                "their rows; unpaired data (with `y` a dict) name no absent "
                "samples, they leave them out."
            )
    presence = ops.cast(presence, "bool")
    for index, name in enumerate(modalities):
        inputs[name] = _present_rows(inputs[name], presence[:, index])
    return inputs, presence


def split_targets(
    modalities: Sequence[str], y: Any, sample_weight: Any | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns labels and sample weights of each modality, as dicts.

    Raises:
        ValueError: If one of them is a dict and the other does not fit it.
    """
    if y is None:
        raise ValueError(
            "Training and evaluation need labels: pass `y`, or batches "
            "`(x, y)`. Received: y=None"
        )
    if not isinstance(y, dict):
        if isinstance(sample_weight, dict):
            raise ValueError(
                "`sample_weight` may be a dict only where `y` is one too "
                "(unpaired training). Received: sample_weight with keys "
                f"{list(sample_weight)} and a single `y`"
            )
        return (
            dict.fromkeys(modalities, y),
            dict.fromkeys(modalities, sample_weight),
        )
    if set(y) != set(modalities):
        raise ValueError(
            "With `y` a dict (unpaired training), each modality needs its "
            f"labels: expected the keys {list(modalities)}. "
            f"Received: {list(y)}"
        )
    if sample_weight is None:
        return y, dict.fromkeys(modalities)
    if not isinstance(sample_weight, dict):
        raise ValueError(
            "With `y` a dict (unpaired training), `sample_weight` must be a "
            "dict keyed by modality too, and `class_weight` is not supported. "
            "Received: `sample_weight` of type "
            f"{type(sample_weight).__name__}"
        )
    return y, {name: sample_weight.get(name) for name in modalities}


def presence_weight(
    sample_weight: Any | None, present: Any | None, mean_over_batch: bool
) -> Any | None:
    """Weights with which a loss over the batch is one over present samples.

    Args:
        sample_weight: Tensor of shape `(batch,)` or `(batch, 1)`, or `None`.
        present: Bool tensor of shape `(batch,)`, or `None`.
        mean_over_batch: Whether the loss divides by the size of the batch.

    Returns:
        float32 tensor of shape `(batch,)`, or `sample_weight` itself where
        all samples are present.
    """
    if present is None:
        return sample_weight
    weight = ops.cast(present, "float32")
    if mean_over_batch:
        share = present_share(present)
        weight = weight / ops.where(share > 0, share, ops.ones_like(share))
    if sample_weight is not None:
        weight = weight * ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
    return weight


def present_share(present: Any) -> Any:
    """The share of samples that are present, on all replicas together."""
    return training.global_mean(ops.cast(present, "float32"), None)


def _present_rows(values: Any, present: Any) -> Any:
    """Replaces absent rows by present ones, in turn."""
    positions = ops.arange(ops.shape(present)[0], dtype="int32")
    count = ops.sum(ops.cast(present, "int32"))
    present_first = ops.argsort(ops.cast(ops.logical_not(present), "int32"))
    substitute = ops.take(present_first, positions % ops.maximum(count, 1))
    index = ops.where(present, positions, ops.cast(substitute, "int32"))

    def replace(value: Any) -> Any:
        rows = ops.take(value, index, axis=0)
        # Without any present row, NaN may stand in all of them.
        return ops.where(count > 0, rows, ops.zeros_like(rows))

    return keras.tree.map_structure(replace, values)


def _plural(noun: str, names: Sequence[str]) -> str:
    plural = {"modality": "modalities"}.get(noun, noun + "s")
    label = noun if len(names) == 1 else plural
    return f"{label} {', '.join(repr(name) for name in names)}"
