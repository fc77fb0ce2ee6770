"""Temperatures that make unimodal predictions comparable in a fusion."""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_mla.core.calibration.samples import Samples, fused_by
from keras_mla.core.tasks import Task

LEAST, MOST = 0.01, 100.0
# Beyond it, weights near 0 and 1 change little, and their exponentials may
# vanish.
SHARPEST = 10.0


def fit_certainty(model: Any, samples: Samples) -> dict[str, Any]:
    """Fits the fusion's temperatures, sharpness and scale.

    A ridge draws temperatures and scale to 1, as strongly as one sample would.
    Without it they have no bound where no prediction is wrong.
    """
    fusion, task = model.fusion, model.task
    y, weight = samples.y, samples.weight
    ridge = 1 / effective_number(weight)
    temperature = temperatures(task, samples)
    fusion.temperature.assign(temperature.astype("float32"))

    def fused() -> np.ndarray:
        fusion.scale.assign(1.0)
        return fused_by(fusion, samples.logits, samples.present)

    def loss_of(sharpness: float) -> float:
        fusion.sharpness.assign(sharpness)
        z = fused()
        scale = best_scale(task, z, y, weight, ridge)
        return task.negative_log_likelihood(scale * z, y, weight)

    result: dict[str, Any] = {
        "temperature": by_name(model, temperature),
    }
    if hasattr(fusion, "sharpness"):
        # The search begins at 0.01, so 0, the plain average, is tried
        # separately.
        found = minimum(loss_of, SHARPEST)
        sharpness = min((0.0, found), key=loss_of)
        fusion.sharpness.assign(sharpness)
        result["sharpness"] = sharpness
    scale = best_scale(task, fused(), y, weight, ridge)
    fusion.scale.assign(scale)
    result["scale"] = scale
    return result


def fit_variances(model: Any, samples: Samples) -> dict[str, Any]:
    """Sets each expert's variance to its mean squared error."""
    variance = variances(samples)
    model.fusion.variance.assign(variance.astype("float32"))
    return {"variance": by_name(model, variance)}


def temperatures(task: Task, samples: Samples) -> np.ndarray:
    """Returns each expert's temperature, 1 for an expert without a sample.

    A ridge draws them to 1, as strongly as one sample would.
    """
    found = []
    for z, y, weight in samples.of_each():
        if not len(y):
            found.append(1.0)
            continue
        ridge = 1 / effective_number(weight)
        found.append(1 / best_scale(task, z, y, weight, ridge))
    return np.array(found)


def variances(samples: Samples) -> np.ndarray:
    """Returns each expert's mean squared error."""
    found = []
    for z, y, weight in samples.of_each():
        errors = ((z.astype("float64") - y) ** 2).mean(axis=1)
        found.append(np.average(errors, weights=weight) if len(y) else 1.0)
    return np.maximum(found, 1e-12)


def best_scale(
    task: Task,
    logits: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    ridge: float = 0.0,
) -> float:
    """Returns the factor to logits that makes labels most likely.

    Args:
        task: The task.
        logits: Array of shape `(samples, units)`.
        y: Labels.
        weight: Array of shape `(samples,)`.
        ridge: float. The factor of half the squared logarithm. Defaults to
            `0.0`.
    """
    return minimum(
        lambda s: (
            task.negative_log_likelihood(s * logits, y, weight)
            + 0.5 * ridge * float(np.log(s)) ** 2
        )
    )


def effective_number(weight: np.ndarray) -> float:
    """Returns how many equally weighted samples say as much (Kish, 1965)."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def minimum(function: Callable[[float], float], most: float = MOST) -> float:
    """Returns the number from `LEAST` to `most` that minimises a function."""
    try:
        from scipy.optimize import minimize_scalar
    except ImportError as error:
        raise ImportError(
            "`calibrate` needs SciPy: pip install scipy"
        ) from error
    # The search is over the logarithm.
    found = minimize_scalar(
        lambda u: function(float(np.exp(u))),
        bounds=(np.log(LEAST), np.log(most)),
        method="bounded",
    )
    return float(np.exp(found.x))


def by_name(model: Any, values: np.ndarray) -> dict[str, float]:
    """Returns a number for each expert, by its name."""
    return dict(zip(model.experts, map(float, values), strict=True))
