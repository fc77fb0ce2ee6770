"""Predicts a split, with all modalities and with subsets of them."""

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_mla.analysis.fusion import report_of, scores_of
from keras_mla.analysis.modality_gap import modality_gap
from keras_mla.analysis.shapley import shapley_values
from keras_mla.analysis.worth import prior
from keras_mla.comparison import data as data_lib
from keras_mla.comparison.data import Data, Fold, Part
from keras_mla.comparison.metrics import Metric
from keras_mla.comparison.results import (
    CALIBRATED,
    POOLED,
    Predictions,
    subset_key,
    subsets,
)
from keras_mla.core.arrays import full_presence
from keras_mla.core.calibration.calibrate import fit, fits
from keras_mla.core.calibration.joint import Candidate, cross_fitted
from keras_mla.core.calibration.samples import (
    Samples,
    experts_of,
    fused_by,
    predicted,
)


def predict(
    model: Any, data: Data, part: Part, size: int
) -> dict[str, np.ndarray]:
    """Returns outputs of each modality, and fused ones.

    Args:
        model: A trained model.
        data: The data.
        part: A split.
        size: int. Samples in a batch.

    Returns:
        dict of modality, and `"fused"`, to outputs `(samples, units)`.
    """
    found = _joined(
        [
            model.predict_modalities(x, size)
            for x, _ in _large_batches(data, part)
        ]
    )
    outputs = {name: found[name]["logits"] for name in data.modalities}
    return {**outputs, "fused": found["fused"]}


def examine(
    model: Any,
    data: Data,
    fold: Fold,
    metric: Metric,
    size: int,
    calibration: str | None = None,
) -> dict[str, Any]:
    """Predicts the test split with each subset of modalities.

    Args:
        model: A trained model. It is calibrated at the end, if it can be.
        data: `Data`.
        fold: The fold it was trained on.
        metric: What the modalities' worth is measured in.
        size: int. Samples in a batch.
        calibration: The calibration that belongs to the method, or `None`.

    Returns:
        dict of `"predictions"`, a `Predictions` whose rows are those of the
        data; `"gap"`, `"worth"` and `"fusion"`, as `Run` has them.
    """
    test = fold.parts["test"]
    if model.fusion is not None:
        samples = predicted(model, _whole(fold.parts["validation"]), size)
        if calibration is not None:
            fit(model, samples, calibration)
    # One pass: a stream decodes its files each time.
    parts, start = [], 0
    for x, rows in _large_batches(data, test):
        at = slice(start, start + rows)
        patterns = {key: p[at] for key, p in test.patterns.items()}
        parts.append(_seen(model, data, x, size, patterns))
        start += rows
    seen = _joined(parts)
    outputs = seen["outputs"]
    gap = {
        f"{a} / {b}": float(distance)
        for (a, b), distance in _gap(seen["features"], seen["given"]).items()
    }
    worth = _worth(data, fold, outputs, metric)
    fusion = {}
    if model.fusion is not None:
        fusion = _report(model, samples)
        if fusion and fits(model, "temperature"):
            fusion["calibrated"] = _held_out(model, samples)
        for key, method in ((CALIBRATED, "temperature"), (POOLED, "joint")):
            if fits(model, method):
                found = fit(model, samples, method)
                outputs[key] = fused_by(model.fusion, *seen["experts"])
        fusion["kept"] = found["fusion"]
        fusion["weight"] = found.get("weight", {})
    return {
        "predictions": Predictions(test.rows, outputs, seen["weights"]),
        "gap": gap,
        "worth": worth,
        "fusion": fusion,
    }


def calibrate(
    model: Any, fold: Fold, size: int, method: str | None = None
) -> None:
    """Calibrates a model on validation data, if it can be calibrated.

    Args:
        model: A trained model.
        fold: The fold it was trained on.
        size: int. Samples in a batch.
        method: `"temperature"` or `"joint"`. Defaults to `"temperature"`.
    """
    method = method or "temperature"
    if model.fusion is not None and fits(model, method):
        with warnings.catch_warnings():
            # The report shows what it is worth.
            for start in ("ended", "gave", "made", "replaced"):
                warnings.filterwarnings("ignore", f"`calibrate` {start}")
            warnings.filterwarnings("ignore", "`validation_data` cannot tell")
            validation = _whole(fold.parts["validation"])
            model.calibrate(validation, size, method)


def _report(model: Any, samples: Samples) -> dict[str, Any]:
    """Returns the fields of the report of a fusion; none of few samples."""
    try:
        fields = dataclasses.asdict(report_of(model, samples))
    except ValueError:
        return {}
    for name in ("scores", "samples"):
        fields[name] = {
            subset_key(subset): value for subset, value in fields[name].items()
        }
    return fields


def _held_out(model: Any, samples: Samples) -> dict[str, float]:
    """Returns how good temperatures are on samples they are not fitted to."""

    def fit_to(some: Samples) -> dict[str, Any]:
        return fit(model, some, "temperature")

    def fused(values: dict[str, Any], some: Samples) -> np.ndarray:
        return fused_by(model.fusion, some.logits, some.present)

    # It predicts with each fit before the next one.
    (logits,) = cross_fitted(Candidate(fit_to, fused), samples)
    return scores_of(model.task, logits, samples)


def _whole(part: Part) -> Any:
    """Returns a split as `calibrate` takes it."""
    return (part.x, part.y) if part.in_memory else part.batches()


def _large_batches(data: Data, part: Part) -> Iterator[tuple[dict, int]]:
    """Yields inputs and their number: arrays at once, batches one by one."""
    start = 0
    for x, y in data_lib.batches_of(part, max(len(part.y), 1)):
        stop = start + len(y)
        if not np.array_equal(y, part.y[start:stop], equal_nan=True):
            raise ValueError(
                "The batches of a split come in another order than their "
                "labels were read in: validation and test must not be shuffled."
            )
        start = stop
        yield data_lib.stacked(data.modalities, x), len(y)


def _joined(parts: list[Any]) -> Any:
    """Joins equal structures of arrays along the samples."""
    if len(parts) == 1:
        return parts[0]
    return keras.tree.map_structure(lambda *a: np.concatenate(a), *parts)


def _seen(
    model: Any, data: Data, x: dict, size: int, patterns: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Returns what a model makes of a batch, and of parts of it."""
    names = data.modalities
    found = model.predict_modalities(x, size)
    outputs = {subset_key(names): found["fused"]}
    given = full_presence(names, x)
    shown = {
        subset_key(subset): np.array([name in subset for name in names])
        for subset in subsets(names)
    }
    for key, pattern in {**shown, **patterns}.items():
        if key not in outputs:
            kept = given & pattern
            hidden = {**x, "presence": kept}
            # Nothing is known of samples without any modality.
            outputs[key] = (
                model.predict(hidden, batch_size=size, verbose=0)
                if kept.any()
                else np.zeros_like(found["fused"])
            )
    return {
        "outputs": outputs,
        "weights": {
            name: found[name]["weight"]
            for name in names
            if "weight" in found[name]
        },
        "experts": (
            np.stack([found[name]["logits"] for name in model.experts], 1),
            experts_of(model, given),
        ),
        "features": model.features(x, size) if len(names) > 1 else {},
        "given": given,
    }


def _gap(features: dict[str, np.ndarray], given: np.ndarray) -> dict:
    """Returns the gap among samples that have all modalities."""
    whole = given.all(axis=1)
    sizes = {values.shape[1:] for values in features.values()}
    if len(sizes) != 1 or not whole.any():
        return {}
    return modality_gap({n: values[whole] for n, values in features.items()})


def _worth(
    data: Data, fold: Fold, outputs: dict[str, np.ndarray], metric: Metric
) -> dict[str, float]:
    """Returns each modality's Shapley value: positive if it helps."""
    names = data.modalities
    if any(subset_key(s) not in outputs for s in subsets(names, len(names))):
        return {}
    y = fold.parts["test"].y
    empty = prior(data.task, fold.parts["train"].y, data.units)
    empty = np.tile(empty.astype("float32"), (len(y), 1))
    sign = 1 if metric.higher_is_better else -1

    def value(subset: tuple[str, ...]) -> float:
        found = outputs[subset_key(subset)] if subset else empty
        return sign * metric(y, found)

    return {n: float(v) for n, v in shapley_values(value, names).shares.items()}
