"""The format of a batch: modalities, presence, paired and unpaired labels.

`x` is a dict keyed by modality, which also holds `presence` if some modalities
are missing. `y` is one tensor, or a dict keyed by modality if each modality
has its own samples and labels.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.backend import distribution, kernels
from keras_mla.core.filling import fill_absent
from keras_mla.presence import stack_presence

# Says which rows of a batch are samples. Others fill it up for the devices.
COUNTED = "_counted"
RESERVED = ("presence", "sample_id", COUNTED)


@dataclasses.dataclass
class Batch:
    """One batch, checked, with rows of absent samples replaced.

    Attributes:
        inputs: dict of each modality's tensors. Rows of absent samples hold
            copies of present rows, if there are any.
        labels: dict of each modality's labels.
        sample_weight: dict of each modality's weights, or of `None`.
        presence: Bool tensor of shape `(batch, modalities)`, or `None`.
        paired: bool. Whether all modalities have the same samples.
        sample_id: Tensor of shape `(batch,)`, the ids of the samples, or
            `None` if `x` has no ids.
        training: bool. Whether the batch is for training.
        values: dict of each modality's tensors as passed. Rows that the user
            marked absent may hold anything.
        hidden: Bool tensor of shape `(batch, modalities)`: true for values
            that were passed as present and that `hide` has made absent. `None`
            if nothing was hidden.
        modalities: Names of the modalities, in the order of `presence`.
        counted: Bool tensor of shape `(batch,)`, or `None` for all: the rows
            that are samples. Others, which `fill_up` has added, have no
            modality.
        extra: A structure of tensors that a method's `prepare_batch` has
            computed for its losses.
        seen: Tensor of shape `(modalities,)`, the number of samples that have
            each modality, on all replicas. `None` if no modality is missing,
            or nothing was counted yet.
        own: The same on this replica alone.
    """

    inputs: dict[str, Any]
    labels: dict[str, Any]
    sample_weight: dict[str, Any]
    presence: Any | None
    paired: bool
    sample_id: Any | None = None
    training: bool = True
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    hidden: Any | None = None
    modalities: tuple[str, ...] = ()
    counted: Any | None = None
    extra: Any = ()
    seen: Any | None = None
    own: Any | None = None
    sizes: dict[str, Any] = dataclasses.field(default_factory=dict, init=False)

    @classmethod
    def from_data(
        cls, modalities: Sequence[str], data: Any, training: bool = True
    ) -> "Batch":
        """Makes a batch from `(x, y)` or `(x, y, sample_weight)`.

        Args:
            modalities: Sequence of str. Names of the modalities, in the order
                of `presence`.
            data: `(x, y)` or `(x, y, sample_weight)`. `x` is a dict keyed by
                modality, which may also hold `presence` and `sample_id`. `y`
                is one tensor, or a dict keyed by modality for unpaired data.
                `sample_weight` is a dict only if `y` is one.
            training: bool. Whether the batch is for training. Defaults to
                `True`.

        Returns:
            A `Batch`, in which rows of absent samples are replaced.

        Raises:
            ValueError: If `y` is `None`, if `x` holds `presence` and `y` is a
                dict, or if keys, rows, `presence`, labels and weights do not
                fit together.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        inputs, presence = split_inputs(modalities, x, training)
        paired = not isinstance(y, dict)
        if paired:
            check_rows(modalities, x)
        elif presence is not None:
            raise ValueError(
                "x['presence'] and a dict `y` exclude each other. Unpaired "
                "data do not mark absent samples: omit such samples instead."
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
            {name: x[name] for name in modalities},
            modalities=tuple(modalities),
            counted=x.get(COUNTED),
        )

    def hide(self, mask: Any) -> "Batch":
        """Returns a batch with further values absent.

        Args:
            mask: Bool tensor of shape `(batch, modalities)`: true for values
                to hide.

        Raises:
            ValueError: If the batch is unpaired.
        """
        if not self.paired:
            raise ValueError(
                "Unpaired data cannot be hidden: each modality has samples of "
                "its own."
            )
        mask = ops.cast(mask, "bool")
        presence = ops.logical_not(mask)
        if self.presence is not None:
            mask = ops.logical_and(mask, self.presence)
            presence = ops.logical_and(presence, self.presence)
        if self.hidden is not None:
            mask = ops.logical_or(mask, self.hidden)
        inputs = {
            name: fill_absent(
                self.inputs[name], presence[:, index], self.training
            )
            for index, name in enumerate(self.values)
        }
        return dataclasses.replace(
            self, inputs=inputs, presence=presence, hidden=mask, seen=None
        )

    def drop(self, rate: float, seed: Any, always: bool = False) -> "Batch":
        """Returns a batch in which present values are hidden at random.

        A sample keeps one of its modalities, drawn at random, where all would
        be hidden: with M modalities, each is hidden with the probability
        `rate - rate ** M / M`.

        Args:
            rate: float. The probability that a value is hidden.
            seed: `keras.random.SeedGenerator`.
            always: bool. Whether a sample with several modalities loses one
                of them, drawn at random, where none would be hidden. With two
                or three modalities and `rate=0.5`, all incomplete patterns
                are then equally likely. Defaults to `False`.
        """
        shape = (self.size(self.modalities[0]), len(self.modalities))
        drawn = keras.random.uniform(shape, seed=seed)
        if self.presence is not None:
            drawn = ops.where(self.presence, drawn, -ops.ones_like(drawn))
        kept = ops.one_hot(ops.argmax(drawn, axis=1), shape[1], dtype="bool")
        hidden = drawn < rate
        if always:
            # What is absent already is not drawn.
            lowest = ops.argmin(ops.where(drawn < 0, 2.0, drawn), axis=1)
            lost = ops.one_hot(lowest, shape[1], dtype="bool")
            hidden = ops.logical_or(hidden, lost)
        return self.hide(ops.logical_and(hidden, ops.logical_not(kept)))

    def after(self, earlier: Any) -> "Batch":
        """Returns a batch whose inputs are used only once `earlier` is there.

        Args:
            earlier: A structure of tensors.
        """
        return dataclasses.replace(
            self, inputs=kernels.after(earlier, self.inputs)
        )

    def present(self, name: str) -> Any | None:
        """Returns which samples have a modality, bool `(batch,)`.

        Returns `None` if no modality is missing.

        Args:
            name: str. Name of the modality.
        """
        if self.presence is None:
            return None
        return self.presence[:, self.modalities.index(name)]

    def active(self, names: Sequence[str]) -> Any | None:
        """Returns whether any sample has one of `names`, a bool scalar.

        Returns `None` if no modality is missing.

        Args:
            names: Sequence of str. Names of modalities.
        """
        if self.presence is None:
            return None
        seen = self.with_seen().seen
        assert seen is not None
        return sum(seen[self.modalities.index(name)] for name in names) > 0

    def filled(self, name: str) -> Any | None:
        """Returns whether absent rows of a modality hold present ones.

        On a replica whose rows all lack it, they hold what the user passed.

        Args:
            name: str. Name of the modality.

        Returns:
            Bool scalar; `None` if no modality is missing.
        """
        if self.presence is None:
            return None
        own = self.with_seen().own
        assert own is not None
        return own[self.modalities.index(name)] > 0

    def with_seen(self) -> "Batch":
        """Returns a batch that knows how many samples have each modality."""
        if self.presence is None or self.seen is not None:
            return self
        own = ops.sum(ops.cast(self.presence, "float32"), axis=0)
        (seen,) = distribution.total([own])
        return dataclasses.replace(self, seen=seen, own=own)

    def split(self, parts: int) -> list["Batch"]:
        """Returns parts of the batch's rows, one after the other.

        Args:
            parts: int. The number of parts, as equal as they can be. A batch
                of fewer rows has empty parts.
        """
        if parts == 1:
            return [self]
        of_batch = self.by_rows()
        extra = of_batch.pop("extra")
        rows = _rows(self.inputs[self.modalities[0]])
        found = []
        for index in range(parts):
            # Unpaired modalities are split one by one.
            cut = functools.partial(_part, index=index, parts=parts)
            of_part = keras.tree.map_structure(cut, of_batch)
            of_part["extra"] = keras.tree.map_structure(
                functools.partial(cut, rows=rows), extra
            )
            found.append(dataclasses.replace(self, **of_part))
        return found

    def by_rows(self) -> dict[str, Any]:
        """Returns the attributes whose tensors have a row for each sample."""
        names = (
            *("inputs", "labels", "sample_weight", "presence", "sample_id"),
            *("values", "hidden", "counted", "extra"),
        )
        return {name: getattr(self, name) for name in names}

    def known(self) -> Any | None:
        """Returns which samples have any modality, bool `(batch,)`.

        Returns `None` if no modality is missing.
        """
        if self.presence is None:
            return None
        return ops.any(self.presence, axis=1)

    def samples(self, name: str) -> Any:
        """Returns the number of one modality's rows that are samples.

        Args:
            name: str. Name of the modality.
        """
        if self.counted is None:
            return self.size(name)
        return ops.sum(ops.cast(self.counted, "int32"))

    def size(self, name: str) -> Any:
        """Returns the number of rows of one modality.

        Args:
            name: str. Name of the modality.
        """
        if self.paired:  # One object, for losses that count the same rows.
            name = next(iter(self.inputs))
        if name not in self.sizes:
            leaf = keras.tree.flatten(self.inputs[name])[0]
            self.sizes[name] = ops.shape(leaf)[0]
        return self.sizes[name]


def each_batch(data: Any) -> Iterable[Any]:
    """Returns the batches of `(x, y)`, a `PyDataset` or an iterable."""
    if isinstance(data, tuple):
        return [data]
    if isinstance(data, keras.utils.PyDataset):
        # Iterating over such a dataset would not end.
        return map(data.__getitem__, range(len(data)))
    return data


def check_inputs(modalities: Sequence[str], x: Any) -> None:
    """Checks the keys of `x`, and the shape of `presence`.

    Raises:
        ValueError: If `x` is not a dict, modalities are missing or unknown, or
            `presence` has another shape than `(batch, modalities)`.
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
            "modality alone, call `model.unimodal(name)`. If all samples lack "
            "a modality in prediction, pass None for it. If only some samples "
            "lack it, pass any values for these samples and mark them as "
            "absent in x['presence'], a bool array of shape "
            f"(batch, {len(modalities)}). Received: keys {sorted(x)}"
        )
    empty = [name for name in modalities if x[name] is None]
    if empty:
        raise ValueError(
            f"x[{empty[0]!r}] is None. Training needs an array for each "
            "modality: pass any values for samples that lack it, and mark "
            "these samples as absent in x['presence']. In evaluation and "
            "prediction, None stands for a modality that all samples lack."
        )
    unknown = [
        name for name in x if name not in modalities and name not in RESERVED
    ]
    if unknown:
        raise ValueError(
            f"The inputs have unknown {_plural('key', unknown)}. The model's "
            f"modalities are {list(modalities)}."
        )
    presence = x.get("presence")
    if presence is None:
        return
    shape = tuple(getattr(presence, "shape", ()))
    if len(shape) != 2 or shape[1] != len(modalities):
        raise ValueError(
            "x['presence'] must be a bool array of shape (batch, "
            f"{len(modalities)}), with a column for each of the modalities "
            f"{list(modalities)}. Received: shape {shape}"
        )
    for name in modalities:
        rows = _rows(x[name])
        if None not in (rows, _int(shape[0])) and rows != shape[0]:
            raise ValueError(
                f"x['presence'] has {shape[0]} rows, but modality "
                f"{name!r} has {rows}. All modalities must share the rows of "
                "`presence`. Unpaired data (with `y` a dict) do not "
                "mark absent samples: omit such samples instead."
            )


def check_rows(modalities: Sequence[str], x: dict[str, Any]) -> None:
    """Raises unless all modalities have the same number of rows."""
    rows = {name: _rows(x[name]) for name in modalities}
    if len(set(rows.values()) - {None}) > 1:
        raise ValueError(
            "With one `y` for all modalities, each modality must have a row "
            "for each sample. Received: "
            + ", ".join(f"{name!r} with {n} rows" for name, n in rows.items())
            + ". For modalities with samples of their own, pass `y` as a dict "
            "of each modality's labels (unpaired training)."
        )


def _rows(value: Any) -> int | None:
    shapes = [getattr(leaf, "shape", ()) for leaf in keras.tree.flatten(value)]
    return _int(shapes[0][0]) if shapes and shapes[0] else None


def _int(size: Any) -> int | None:
    # A size that is not an int is a tracer's placeholder for an unknown one.
    return size if isinstance(size, int) else None


def split_inputs(
    modalities: Sequence[str], x: Any, training: bool | None = False
) -> tuple[dict[str, Any], Any | None]:
    """Checks `x` and separates the modalities from `presence`.

    Returns:
        A dict of each modality's tensors, in the model's order; and `presence`
        as bool, or `None`. Rows of absent samples hold copies of present rows;
        if no sample is present, they are unchanged.

    Raises:
        ValueError: If `check_inputs` raises it.
    """
    if isinstance(x, dict) and isinstance(x.get("presence"), Mapping):
        x = {**x, "presence": stack_presence(modalities, x["presence"])}
    check_inputs(modalities, x)
    inputs = {name: x[name] for name in modalities}
    presence = x.get("presence")
    if presence is None:
        return inputs, None
    presence = ops.cast(presence, "bool")
    for index, name in enumerate(modalities):
        inputs[name] = fill_absent(inputs[name], presence[:, index], training)
    return inputs, presence


def split_targets(
    modalities: Sequence[str], y: Any, sample_weight: Any | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns labels and sample weights of each modality, as dicts.

    Raises:
        ValueError: If `y` is `None`, if only one of them is a dict, or if a
            dict has other keys than the modalities.
    """
    if y is None:
        raise ValueError(
            "Training and evaluation need labels: pass `y`, or batches "
            "`(x, y)`. Received: y=None"
        )
    if not isinstance(y, dict):
        if isinstance(sample_weight, dict):
            raise ValueError(
                "`sample_weight` may be a dict only if `y` is a dict too "
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
    unknown = set(sample_weight) - set(modalities)
    if unknown:
        raise ValueError(
            "The keys of `sample_weight` must be modalities. Expected some of "
            f"{list(modalities)}. Received: {list(sample_weight)}"
        )
    return y, {name: sample_weight.get(name) for name in modalities}


def _part(leaf: Any, index: int, parts: int, rows: int | None = None) -> Any:
    """Returns one of several parts of a tensor's rows.

    Args:
        leaf: The tensor, or `None`.
        index: int. Index of the part.
        parts: int. The number of parts.
        rows: int. A tensor of another size is returned whole. `None` stands
            for any size.
    """
    if leaf is None or not len(leaf.shape):
        return leaf
    size = ops.shape(leaf)[0]
    if rows is not None and isinstance(size, int) and size != rows:
        return leaf
    return leaf[index * size // parts : (index + 1) * size // parts]


def present_share(present: Any) -> Any:
    """Returns the share of samples that are present, over all replicas."""
    return distribution.global_mean(ops.cast(present, "float32"), None)


def _plural(noun: str, names: Sequence[str]) -> str:
    plural = {"modality": "modalities"}.get(noun, noun + "s")
    label = noun if len(names) == 1 else plural
    return f"{label} {', '.join(repr(name) for name in names)}"
