"""Temperatures that make unimodal predictions comparable in a fusion."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.layers.fusion import Fusion


def calibrate(model: Any, data: Any, batch_size: int | None) -> dict:
    """See `MultimodalClassifier.calibrate`."""
    fusion = model.fusion
    if fusion is None:
        raise ValueError(
            f"{type(model).__name__} joins features and does not fuse unimodal "
            "predictions, so there is nothing to calibrate. MLA, LateFusion, "
            "UnimodalEnsemble, MultiLossFusion and QMF can be calibrated."
        )
    logits, present, y = _predictions(model, data, batch_size)
    temperature = []
    for index, name in enumerate(model.modalities):
        here = present[:, index]
        if not here.any():
            raise ValueError(
                f"The validation data have no sample with modality {name!r}, "
                "so that its temperature cannot be fitted."
            )
        z, labels = logits[here, index], y[here]
        temperature.append(
            _minimum(lambda t, z=z, y=labels: _nll(z / t, y))  # type: ignore[misc]
        )
    fusion.temperature.assign(np.array(temperature, "float32"))

    known = present.any(axis=1)

    def fused() -> np.ndarray:
        fusion.scale.assign(1.0)
        return _fused(fusion, logits, present)[known]

    def best_scale(z: np.ndarray) -> float:
        return _minimum(lambda s: _nll(s * z, y[known]))

    def loss_of(sharpness: float) -> float:
        fusion.sharpness.assign(sharpness)
        z = fused()
        return _nll(best_scale(z) * z, y[known])

    result: dict[str, Any] = {
        "temperature": dict(zip(model.modalities, temperature, strict=True))
    }
    if hasattr(fusion, "sharpness"):
        # 0, the plain average, is a candidate of its own. Beyond 10 weights
        # of 0 and 1 change little, and their exponentials may vanish.
        sharpness = min((0.0, _minimum(loss_of, 10.0)), key=loss_of)
        fusion.sharpness.assign(sharpness)
        result["sharpness"] = sharpness
    scale = best_scale(fused())
    fusion.scale.assign(scale)
    result["scale"] = scale
    return result


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
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unimodal logits, which are present, and classes, of all samples."""
    if isinstance(data, tuple):
        data = [data]
    if isinstance(data, keras.utils.PyDataset):
        # Python would ask such a dataset for batches without end.
        data = map(data.__getitem__, range(len(data)))
    parts = []
    for batch in data:
        x, y = batch[0], batch[1]
        if isinstance(y, dict):
            raise ValueError(
                "`calibrate` fits the fused prediction, which needs all "
                "modalities of the same samples: `y` must be one array. "
                f"Received: a dict with the keys {list(y)}"
            )
        y = np.asarray(ops.convert_to_numpy(y))
        result = model.predict_modalities(x, batch_size)
        logits = np.stack([result[m]["logits"] for m in model.modalities], 1)
        present = np.ones(logits.shape[:2], bool)
        if x.get("presence") is not None:
            present = np.asarray(x["presence"]).astype(bool)
        if y.ndim == 2 and y.shape[1] == logits.shape[2]:
            y = y.argmax(axis=1)
        y = y.reshape(-1).astype(int)
        outside = y[(y < 0) | (y >= logits.shape[2])]
        if outside.size:
            raise ValueError(
                f"Labels must lie between 0 and {logits.shape[2] - 1}. "
                f"Received: {outside[0]}"
            )
        parts.append((logits, present, y))
    if not parts:
        raise ValueError(
            "`validation_data` has no samples. Pass `(x, y)`, or batches of it."
        )
    logits, present, y = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    return logits, present, y


def _nll(logits: np.ndarray, y: np.ndarray) -> float:
    logits = logits.astype("float64")
    logits = logits - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits).sum(axis=1))
    return float(np.mean(log_sum - logits[np.arange(len(y)), y]))


def _minimum(function: Callable[[float], float], most: float = 100.0) -> float:
    """The number from 0.01 to `most` with a function's smallest value."""
    try:
        from scipy.optimize import minimize_scalar
    except ImportError as error:
        raise ImportError(
            "`calibrate` needs SciPy: pip install scipy"
        ) from error
    # By its logarithm.
    found = minimize_scalar(
        lambda u: function(float(np.exp(u))),
        bounds=(np.log(0.01), np.log(most)),
        method="bounded",
    )
    return float(np.exp(found.x))
