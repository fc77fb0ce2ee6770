"""The predictions that a calibration is fitted to."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_mla.core.arrays import full_presence
from keras_mla.core.batch import each_batch
from keras_mla.core.losses import labelled


class Samples(NamedTuple):
    """Predictions of validation data, and what is right.

    Attributes:
        logits: array `(samples, experts, units)`; 0 where an expert is absent.
        presence: bool array `(samples, modalities)`.
        present: bool array `(samples, experts)`.
        y: Labels, as the task's `labels_of` returns them.
        weight: array `(samples,)`, positive.
    """

    logits: np.ndarray
    presence: np.ndarray
    present: np.ndarray
    y: np.ndarray
    weight: np.ndarray

    def take(self, rows: np.ndarray) -> "Samples":
        """Returns some of the samples."""
        return Samples(*(values[rows] for values in self))

    def of_each(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Yields logits, labels and weights of the samples of each expert."""
        for index in range(self.present.shape[1]):
            here = self.present[:, index]
            yield self.logits[here, index], self.y[here], self.weight[here]


def predicted(model: Any, data: Any, batch_size: int | None) -> Samples:
    """Predicts validation data with each expert.

    Samples that count for nothing are left out: those without any modality,
    with a weight of 0, or with the class that the loss ignores.

    Raises:
        ValueError: If there are no samples, or none of some expert.
    """
    parts = []
    for batch in each_batch(data):
        x, y = batch[0], batch[1]
        if isinstance(y, dict):
            raise ValueError(
                "`calibrate` fits the fused prediction, which needs all "
                "modalities of the same samples: `y` must be one array. "
                f"Received: a dict with the keys {list(y)}"
            )
        y = np.asarray(ops.convert_to_numpy(y))
        x = model.prepare_inputs(x)
        result = model.predict_modalities(x, batch_size)
        logits = np.stack([result[m]["logits"] for m in model.experts], 1)
        presence = full_presence(model.modalities, x)
        weight = np.ones(len(y))
        if len(batch) > 2 and batch[2] is not None:
            given = ops.convert_to_numpy(batch[2])
            weight = np.asarray(given, "float64").reshape(len(y), -1).mean(1)
        weight = weight * labelled(model, y)
        of_experts = experts_of(model, presence)
        counted = of_experts.any(axis=1) & (weight > 0)
        labels = model.task.labels_of(y[counted], logits.shape[2])
        parts.append(
            (
                logits[counted],
                presence[counted],
                of_experts[counted],
                labels,
                weight[counted],
            )
        )
    if not parts:
        raise ValueError(
            "`validation_data` has no samples. Pass `(x, y)`, or batches of it."
        )
    samples = Samples(*(np.concatenate(p) for p in zip(*parts, strict=True)))
    for index, name in enumerate(model.experts):
        if not samples.present[:, index].any():
            raise ValueError(
                "Calibration needs samples of each expert in "
                f"`validation_data`. Received: no sample of {name!r}"
            )
    return samples


def fused_by(fusion: Any, samples: Samples) -> np.ndarray:
    """Returns the logits that a fusion layer makes of samples."""
    return np.asarray(
        ops.convert_to_numpy(
            fusion(
                ops.convert_to_tensor(samples.logits, "float32"),
                ops.convert_to_tensor(samples.present),
            )
        )
    )


def experts_of(model: Any, presence: np.ndarray) -> np.ndarray:
    """Returns which experts samples have, by which modalities they have."""
    shown = model.expert_presence(ops.convert_to_tensor(presence))
    return np.asarray(ops.convert_to_numpy(shown))
