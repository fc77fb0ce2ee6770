"""Calibration of a fusion on validation data."""

import warnings
from typing import Any

import numpy as np

from keras_mla.core.calibration.joint import fit_jointly
from keras_mla.core.calibration.quality import quality
from keras_mla.core.calibration.samples import fused_by, predicted
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
    fit: Any = fit_jointly
    if method == "temperature":
        fit = fit_certainty if model.task.certain else fit_variances
    if fit is fit_variances and not isinstance(
        model.fusion, InverseVarianceFusion
    ):
        raise ValueError(
            f"There is nothing to calibrate in the "
            f"{type(model.fusion).__name__} of a regression. Call "
            "`calibrate(..., method='joint')`, or make the model with "
            "`fusion=keras_mla.layers.InverseVarianceFusion()`, which weighs "
            "modalities by how exact they are."
        )
    samples = predicted(model, data, batch_size)
    before = quality(model.task, fused_by(model.fusion, samples), samples)
    result = fit(model, samples)
    after = quality(model.task, fused_by(model.fusion, samples), samples)
    _warn_of_bounds(result)
    return {**result, "before": before, "after": after}


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
            f"`calibrate` ended at a bound: {', '.join(at_bound)}. Predictions "
            "that say nothing about the labels have no other best value, nor "
            "have predictions without an error on `validation_data`.",
            stacklevel=4,
        )
    off = [name for name, w in result.get("weight", {}).items() if w == 0]
    if off:
        warnings.warn(
            f"`calibrate` gave a weight of 0 to {', '.join(off)}: the fused "
            "prediction does not use it.",
            stacklevel=4,
        )
