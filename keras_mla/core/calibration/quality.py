"""How good and how honest predictions are."""

import numpy as np

from keras_mla.core.calibration.samples import Samples
from keras_mla.core.tasks import Task

BINS = 15


def quality(
    task: Task, logits: np.ndarray, samples: Samples
) -> dict[str, float]:
    """Returns the likelihood and the calibration error of fused logits."""
    y, weight = samples.y, samples.weight
    found = {
        "negative_log_likelihood": task.negative_log_likelihood(
            logits, y, weight
        )
    }
    if task.certain:
        found["calibration_error"] = calibration_error(logits, y, weight)
    return found


def calibration_error(
    logits: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> float:
    """Returns the expected calibration error; of labels, over all of them.

    It is that of `keras_mla.metrics.ExpectedCalibrationError`, by NumPy.
    """
    if y.ndim == 2:  # Each label is a yes or no.
        weight = np.repeat(weight, y.shape[1])
        logits = np.stack([np.zeros(logits.size), logits.reshape(-1)], 1)
        y = (y.reshape(-1) > 0.5).astype(int)
    logits = logits - logits.max(axis=1, keepdims=True)
    confidence = 1 / np.exp(logits).sum(axis=1)
    right = logits.argmax(axis=1) == y
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gap = np.bincount(place, weight * (right - confidence), BINS)
    return float(np.abs(gap).sum() / weight.sum())
