"""Temperatures that make unimodal predictions comparable in a fusion."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from keras import ops

from keras_mla.core.batch import each_batch
from keras_mla.core.losses import labelled
from keras_mla.layers.fusion import Fusion, InverseVarianceFusion


def calibrate(model: Any, data: Any, batch_size: int | None) -> dict:
    """Fits a fusion to validation data, as `ServedModel.calibrate` says."""
    if model.fusion is None:
        raise ValueError(
            f"{type(model).__name__} joins features and does not fuse unimodal "
            "predictions, so there is nothing to calibrate. Methods with a "
            "`fusion` layer, such as MLA and LateFusion, can be calibrated."
        )
    if model.task.certain:
        return _calibrate_certainty(model, data, batch_size)
    return _set_variances(model, data, batch_size)


def _calibrate_certainty(model: Any, data: Any, batch_size: int | None) -> dict:
    """Fits temperatures, a sharpness and a scale."""
    fusion, nll = model.fusion, model.task.negative_log_likelihood
    logits, present, y, weight = _predictions(model, data, batch_size)
    temperature = []
    for z, *others in _of_each(model, logits, present, y, weight):
        temperature.append(
            _minimum(lambda t, z=z, o=others: nll(z / t, *o))  # type: ignore[misc]
        )
    fusion.temperature.assign(np.array(temperature, "float32"))

    def fused() -> np.ndarray:
        fusion.scale.assign(1.0)
        return _fused(fusion, logits, present)

    def best_scale(z: np.ndarray) -> float:
        return _minimum(lambda s: nll(s * z, y, weight))

    def loss_of(sharpness: float) -> float:
        fusion.sharpness.assign(sharpness)
        z = fused()
        return nll(best_scale(z) * z, y, weight)

    result: dict[str, Any] = {
        "temperature": dict(zip(model.experts, temperature, strict=True))
    }
    if hasattr(fusion, "sharpness"):
        # The search begins at 0.01, so 0, the plain average, is tried
        # separately. Beyond 10, weights near 0 and 1 change little, and their
        # exponentials may vanish.
        sharpness = min((0.0, _minimum(loss_of, 10.0)), key=loss_of)
        fusion.sharpness.assign(sharpness)
        result["sharpness"] = sharpness
    scale = best_scale(fused())
    fusion.scale.assign(scale)
    result["scale"] = scale
    return result


def _set_variances(model: Any, data: Any, batch_size: int | None) -> dict:
    """Sets each expert's variance to its mean squared error."""
    fusion = model.fusion
    if not isinstance(fusion, InverseVarianceFusion):
        raise ValueError(
            f"There is nothing to calibrate in the {type(fusion).__name__} of "
            "a regression. Make the model with "
            "`fusion=keras_mla.layers.InverseVarianceFusion()`, which weighs "
            "modalities by how exact they are."
        )
    logits, present, y, weight = _predictions(model, data, batch_size)
    variance = [
        max(
            float(np.average(((z - y) ** 2).mean(axis=1), weights=w)),
            1e-12,
        )
        for z, y, w in _of_each(model, logits, present, y, weight)
    ]
    fusion.variance.assign(np.array(variance, "float32"))
    return {"variance": dict(zip(model.experts, variance, strict=True))}


def _of_each(
    model: Any,
    logits: np.ndarray,
    present: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields logits, labels and weights of the samples of each expert."""
    for index, name in enumerate(model.experts):
        here = present[:, index]
        if not here.any():
            raise ValueError(
                "Calibration needs samples of each expert in "
                f"`validation_data`. Received: no sample of {name!r}"
            )
        yield logits[here, index], y[here], weight[here]


def _fused(
    fusion: Fusion, logits: np.ndarray, present: np.ndarray
) -> np.ndarray:
    """Calls a fusion layer on NumPy arrays."""
    return ops.convert_to_numpy(
        fusion(
            ops.convert_to_tensor(logits, "float32"),
            ops.convert_to_tensor(present),
        )
    )


def _predictions(
    model: Any, data: Any, batch_size: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns logits and presence of experts, labels and sample weights.

    Samples that count for nothing are left out: those without any modality,
    with a weight of 0, or with the class that the loss ignores.
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
        present = np.ones(logits.shape[:2], bool)
        if x.get("presence") is not None:
            given = ops.convert_to_tensor(np.asarray(x["presence"], bool))
            present = np.asarray(
                ops.convert_to_numpy(model.expert_presence(given))
            )
        weight = np.ones(len(y))
        if len(batch) > 2 and batch[2] is not None:
            given = ops.convert_to_numpy(batch[2])
            weight = np.asarray(given, "float64").reshape(len(y), -1).mean(1)
        weight = weight * labelled(model, y)
        counted = present.any(axis=1) & (weight > 0)
        labels = model.task.labels_of(y[counted], logits.shape[2])
        parts.append(
            (logits[counted], present[counted], labels, weight[counted])
        )
    if not parts:
        raise ValueError(
            "`validation_data` has no samples. Pass `(x, y)`, or batches of it."
        )
    logits, present, y, weight = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    return logits, present, y, weight


def _minimum(function: Callable[[float], float], most: float = 100.0) -> float:
    """Returns the number from 0.01 to `most` that minimises a function."""
    try:
        from scipy.optimize import minimize_scalar
    except ImportError as error:
        raise ImportError(
            "`calibrate` needs SciPy: pip install scipy"
        ) from error
    # The search is over the logarithm.
    found = minimize_scalar(
        lambda u: function(float(np.exp(u))),
        bounds=(np.log(0.01), np.log(most)),
        method="bounded",
    )
    return float(np.exp(found.x))
