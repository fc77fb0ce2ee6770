"""Calibration of a fusion on validation data."""

import warnings
from typing import Any

import numpy as np

from keras_mla.core.calibration.joint import fit_jointly
from keras_mla.core.calibration.quality import quality
from keras_mla.core.calibration.samples import (
    Samples,
    fused_by,
    predicted,
)
from keras_mla.core.calibration.temperature import (
    LEAST,
    MOST,
    SHARPEST,
    fit_certainty,
    fit_variances,
)
from keras_mla.layers.fusion import InverseVarianceFusion

METHODS = ("temperature", "joint")


def calibrate(
    model: Any, data: Any, batch_size: int | None, method: str
) -> dict[str, Any]:
    """Fits a fusion to validation data, as `ServedModel.calibrate` says."""
    if method not in METHODS:
        raise ValueError(
            f"`method` must be one of {list(METHODS)}. "
            f"Received: method={method!r}"
        )
    if model.fusion is None:
        raise ValueError(
            f"{type(model).__name__} joins features and does not fuse unimodal "
            "predictions, so there is nothing to calibrate. Methods with a "
            "`fusion` layer, such as MLA and LateFusion, can be calibrated."
        )
    if not fits(model, method):
        raise ValueError(
            f"There is nothing to calibrate in the "
            f"{type(model.fusion).__name__} of a regression. Call "
            "`calibrate(..., method='joint')`, or make the model with "
            "`fusion=keras_mla.layers.InverseVarianceFusion()`, which weighs "
            "modalities by how exact they are."
        )
    samples = predicted(model, data, batch_size, hiding=method == "joint")
    result = fit(model, samples, method)
    if method == "joint":
        _warn_of_classes(model, samples)
    _warn_of_loss(result)
    _warn_of_bounds(result)
    return result


def fits(model: Any, method: str) -> bool:
    """Returns whether a method can fit a model's fusion."""
    exact = isinstance(model.fusion, InverseVarianceFusion)
    return method == "joint" or model.task.certain or exact


def fit(model: Any, samples: Samples, method: str) -> dict[str, Any]:
    """Fits a fusion to predictions; returns what `calibrate` does."""

    def now() -> dict[str, float]:
        fused = fused_by(model.fusion, samples.logits, samples.present)
        return quality(model.task, fused, samples)

    chosen = fit_jointly
    if method == "temperature":
        chosen = fit_certainty if model.task.certain else fit_variances
    before = now()
    result = chosen(model, samples)
    return {**result, "before": before, "after": now()}


def _warn_of_classes(model: Any, samples: Samples) -> None:
    """Warns of what joint calibration cannot fit."""
    unseen = model.task.unseen(samples.y, samples.logits.shape[2])
    if len(unseen):
        warnings.warn(
            "`validation_data` cannot tell how frequent each class is, so that "
            "no class bias is fitted: it lacks the classes (or the yes or no "
            f"of the labels) {unseen.tolist()}",
            stacklevel=4,
        )


def _warn_of_loss(result: dict[str, Any]) -> None:
    """Warns if the fused prediction has become worse, by a hundredth."""
    loss = "negative_log_likelihood"
    before, after = result["before"][loss], result["after"][loss]
    if after - before <= 0.01 * abs(before):
        return
    values = (
        "on `validation_data`: the negative log-likelihood was "
        f"{before:.3g} and is {after:.3g}. "
    )
    if "fusion" in result:
        warnings.warn(
            f"`calibrate` replaced the fusion by one ({result['fusion']}) that "
            f"is worse {values}Where weights by sample help, "
            "`method='temperature'` keeps the model's own fusion.",
            stacklevel=4,
        )
    else:
        warnings.warn(
            f"`calibrate` made the fused prediction worse {values}Temperatures "
            "are fitted to each modality by itself; `method='joint'` fits what "
            "is fused.",
            stacklevel=4,
        )


def _warn_of_bounds(result: dict[str, Any]) -> None:
    """Warns of numbers that ended where their search did."""
    found = {
        f"the temperature of {name!r}": (value, LEAST, MOST)
        for name, value in result.get("temperature", {}).items()
    }
    if "sharpness" in result:
        found["the sharpness"] = (result["sharpness"], 0.0, SHARPEST)
    if "scale" in result:
        found["the scale"] = (result["scale"], LEAST, MOST)
    at_bound = [
        f"{what} is {value:.3g}"
        for what, (value, least, most) in found.items()
        if (least > 0 and np.isclose(value, least, rtol=0.01))
        or np.isclose(value, most, rtol=0.01)
    ]
    if at_bound:
        warnings.warn(
            f"`calibrate` ended at a bound: {', '.join(at_bound)}. So it does "
            "if predictions say nothing about the labels, have no error on "
            "`validation_data`, or come from logits of another scale.",
            stacklevel=4,
        )
    off = [name for name, w in result.get("weight", {}).items() if w == 0]
    if off:
        warnings.warn(
            f"`calibrate` gave a weight of 0 to {', '.join(off)}: the fused "
            "prediction does not use it.",
            stacklevel=4,
        )
