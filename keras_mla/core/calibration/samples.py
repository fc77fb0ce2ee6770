"""The predictions that a calibration is fitted to."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_mla.core.arrays import full_presence
from keras_mla.core.batch import each_batch
from keras_mla.core.losses import labelled

# All subsets of so many modalities are seen; of more, single ones, all but
# one, and as many at random as these have.
ALL_SUBSETS = 5


class Samples(NamedTuple):
    """Predictions of validation data, and what is right.

    Attributes:
        logits: array `(samples, experts, units)`; 0 where an expert is absent.
        presence: bool array `(samples, modalities)`.
        present: bool array `(samples, experts)`.
        y: Labels, as the task's `labels_of` returns them.
        weight: array `(samples,)`, positive.
        others: array `(samples, subsets, others, units)`: the logits of experts
            that are no modalities, if only a subset of `subsets_of` is seen.
    """

    logits: np.ndarray
    presence: np.ndarray
    present: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    others: np.ndarray

    def take(self, rows: np.ndarray) -> "Samples":
        """Returns some of the samples."""
        return Samples(*(values[rows] for values in self))

    def of_each(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Yields logits, labels and weights of the samples of each expert."""
        for index in range(self.present.shape[1]):
            here = self.present[:, index]
            yield self.logits[here, index], self.y[here], self.weight[here]

    def seen(self, model: Any, subset: int) -> "Samples":
        """Returns the samples if only a subset of modalities is seen.

        Args:
            model: The model.
            subset: int. Position in `subsets_of`.
        """
        count = self.presence.shape[1]
        presence = self.presence & subsets_of(count)[subset]
        logits = self.logits
        if logits.shape[1] > count:
            others = self.others[:, subset]
            logits = np.concatenate([logits[:, :count], others], axis=1)
        return self._replace(
            logits=logits,
            presence=presence,
            present=experts_of(model, presence),
        )


def subsets_of(count: int) -> list[np.ndarray]:
    """Returns subsets of modalities, without that of all, as bool arrays."""
    if count <= ALL_SUBSETS:
        shown = itertools.product([False, True], repeat=count)
        return [np.array(one) for one in shown if any(one) and not all(one)]
    single: np.ndarray = np.eye(count, dtype=bool)
    draws = np.random.default_rng(0).random((2**ALL_SUBSETS, count)) < 0.5
    drawn = [one for one in draws if one.any() and not one.all()]
    return [*single, *~single, *drawn]


def predicted(
    model: Any, data: Any, batch_size: int | None, hiding: bool = True
) -> Samples:
    """Predicts validation data with each expert.

    Samples that count for nothing are left out: those without any modality,
    with a weight of 0, or with the class that the loss ignores.

    Args:
        model: The model.
        data: As `calibrate` takes them.
        batch_size: int, or `None`.
        hiding: bool. Whether `Samples.seen` will be called: experts that are
            no modalities then predict from each subset too.

    Raises:
        ValueError: If there are no samples, or none of some expert, or labels,
            weights or logits are not as they should be.
    """
    parts = []
    for batch in each_batch(data):
        x, y, weight = _checked(batch)
        x = model.prepare_inputs(x)
        result = model.predict_modalities(x, batch_size)
        logits = np.stack([result[m]["logits"] for m in model.experts], 1)
        presence = full_presence(model.modalities, x)
        weight = weight * labelled(model, y)
        present = experts_of(model, presence)
        counted = present.any(axis=1) & (weight > 0)
        labels = model.task.labels_of(y[counted], logits.shape[2])
        subsets = subsets_of(len(model.modalities)) if hiding else []
        others = _others(model, x, presence, logits, batch_size, subsets)
        arrays = (logits, presence, present, weight, others)
        logits, presence, present, weight, others = (
            values[counted] for values in arrays
        )
        parts.append((logits, presence, present, labels, weight, others))
    if not parts:
        raise ValueError(
            "`validation_data` has no samples. Pass `(x, y)`, or batches of it."
        )
    samples = Samples(*(np.concatenate(p) for p in zip(*parts, strict=True)))
    if not len(samples.y):
        raise ValueError(
            "No sample of `validation_data` counts: each has no modality, a "
            "weight of 0, or a label that the loss ignores."
        )
    for index, name in enumerate(model.experts):
        here = samples.present[:, index]
        if not here.any():
            raise ValueError(
                "Calibration needs samples of each expert in "
                f"`validation_data`. Received: no sample of {name!r}"
            )
        finite = np.isfinite(samples.logits[here, index]).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"The logits of {name!r} must be finite. Received: NaN or "
                f"infinity for {int((~finite).sum())} samples of "
                "`validation_data`"
            )
    return samples


def _checked(batch: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """Returns inputs, labels and weights of samples."""
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise ValueError(
            "`validation_data` must be `(x, y)` or `(x, y, sample_weight)`, or "
            f"batches of it. Received: an object of type {type(batch).__name__}"
        )
    x, y = batch[0], batch[1]
    if isinstance(y, dict):
        raise ValueError(
            "`calibrate` fits the fused prediction, which needs all "
            "modalities of the same samples: `y` must be one array. "
            f"Received: a dict with the keys {list(y)}"
        )
    y = np.asarray(ops.convert_to_numpy(y))
    if len(batch) < 3 or batch[2] is None:
        return x, y, np.ones(len(y))
    if isinstance(batch[2], dict):
        raise ValueError(
            "`sample_weight` must be one array, for the fused prediction. "
            f"Received: a dict with the keys {list(batch[2])}"
        )
    weight = np.asarray(ops.convert_to_numpy(batch[2]), "float64")
    known = np.isfinite(weight).all() and (weight >= 0).all()
    if len(weight) != len(y) or not known:
        raise ValueError(
            "`sample_weight` must have a number of at least 0 for each sample. "
            f"Received: {len(weight)} weights for {len(y)} labels, the least "
            f"{weight.min() if weight.size else None}"
        )
    weight = weight.reshape(len(y), -1).mean(axis=1)
    return x, y, weight / (weight.max() or 1.0)  # Squares of tiny ones vanish.


def _others(
    model: Any,
    x: dict[str, Any],
    presence: np.ndarray,
    logits: np.ndarray,
    batch_size: int | None,
    subsets: list[np.ndarray],
) -> np.ndarray:
    """Returns the logits of experts that are no modalities, for subsets."""
    names = model.experts[len(model.modalities) :]
    samples, _, units = logits.shape
    if not names or not subsets:
        return np.zeros((samples, 0, len(names), units), logits.dtype)
    found = []
    for subset in subsets:
        hidden = {**x, "presence": presence & subset}
        result = model.predict_modalities(hidden, batch_size)
        found.append(np.stack([result[m]["logits"] for m in names], 1))
    return np.stack(found, 1)


def fused_by(
    fusion: Any, logits: np.ndarray, present: np.ndarray
) -> np.ndarray:
    """Returns the logits that a fusion layer makes of those of experts."""
    return np.asarray(
        ops.convert_to_numpy(
            fusion(
                ops.convert_to_tensor(logits, "float32"),
                ops.convert_to_tensor(present),
            )
        )
    )


def experts_of(model: Any, presence: np.ndarray) -> np.ndarray:
    """Returns which experts samples have, by which modalities they have."""
    shown = model.expert_presence(ops.convert_to_tensor(presence))
    return np.asarray(ops.convert_to_numpy(shown))
