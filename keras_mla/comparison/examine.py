"""Predicts a split, with all modalities and with subsets of them."""

from typing import Any

import keras
import numpy as np

from keras_mla.analysis.modality_gap import modality_gap
from keras_mla.analysis.shapley import shapley_values
from keras_mla.comparison import data as data_lib
from keras_mla.comparison.data import Data, Fold, Part
from keras_mla.comparison.metrics import Metric
from keras_mla.comparison.results import (
    CALIBRATED,
    Predictions,
    subset_key,
    subsets,
)
from keras_mla.layers import InverseVarianceFusion


def predict(
    model: Any, data: Data, part: Part, batch_size: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns outputs of each modality and fused ones, and weights."""
    if part.in_memory:
        found = model.predict_modalities(part.x, batch_size)
    else:
        parts = [
            model.predict_modalities(data_lib.stacked(data.modalities, x))
            for x, _ in data_lib.batches_of(part, 0)
        ]
        found = keras.tree.map_structure(
            lambda *arrays: np.concatenate(arrays), *parts
        )
    outputs = {name: found[name]["logits"] for name in data.modalities}
    weights = {
        name: found[name]["weight"]
        for name in data.modalities
        if "weight" in found[name]
    }
    return {**outputs, "fused": found["fused"]}, weights


def examine(
    model: Any, data: Data, fold: Fold, metric: Metric, size: int
) -> dict[str, Any]:
    """Predicts the test split with each subset of modalities.

    Args:
        model: A trained model. It is calibrated at the end, if it can be.
        data: `Data`.
        fold: The fold it was trained on.
        metric: What the modalities' worth is measured in.
        size: int. Samples in a batch.

    Returns:
        dict of `"predictions"`, a `Predictions` whose rows are those of the
        data; `"gap"` and `"worth"`, as `Run` has them.
    """
    test, names = fold.parts["test"], data.modalities
    own, weights = predict(model, data, test, size)
    everything = subset_key(names)
    outputs = {everything: own["fused"]}
    given = data_lib.presence_of(data, test)
    for subset in subsets(names):
        key = subset_key(subset)
        if key not in outputs:
            kept = given & [name in subset for name in names]
            outputs[key] = _hidden(model, data, test, kept, size)
    worth = _worth(data, fold, outputs, metric)
    features = _features(model, data, test, given, size)
    gap = {f"{a} / {b}": d for (a, b), d in modality_gap(features).items()}
    if calibrate(model, fold, size):
        outputs[CALIBRATED] = predict(model, data, test, size)[0]["fused"]
    return {
        "predictions": Predictions(test.rows, outputs, weights),
        "gap": gap,
        "worth": worth,
    }


def calibrate(model: Any, fold: Fold, size: int) -> bool:
    """Calibrates a model on validation data, if it can be calibrated."""
    part = fold.parts["validation"]
    fusion = model.fusion
    if fusion is None or (
        not model.task.certain and not isinstance(fusion, InverseVarianceFusion)
    ):
        return False
    model.calibrate((part.x, part.y) if part.in_memory else part.x, size)
    return True


def _hidden(
    model: Any, data: Data, part: Part, kept: np.ndarray, size: int
) -> np.ndarray:
    """Predicts with the modalities that `kept` leaves."""
    if part.in_memory:
        x = {**part.x, "presence": kept}
        return model.predict(x, batch_size=size, verbose=0)
    found, start = [], 0
    for x, y in data_lib.batches_of(part, size):
        rows = slice(start, start + len(y))
        start += len(y)
        x = {name: x[name] for name in data.modalities}
        found.append(
            keras.ops.convert_to_numpy(
                model.predict_on_batch({**x, "presence": kept[rows]})
            )
        )
    return np.concatenate(found)


def _features(
    model: Any, data: Data, part: Part, given: np.ndarray, size: int
) -> dict[str, np.ndarray]:
    """Returns features of the samples that have all modalities."""
    if len(data.modalities) < 2:
        return {}
    found: dict[str, list] = {}
    for x, _ in data_lib.batches_of(part, max(size, 512)):
        x = data_lib.stacked(data.modalities, x)
        for name, values in model.features(x, size).items():
            found.setdefault(name, []).append(values)
    features = {
        n: np.concatenate(v)[given.all(axis=1)] for n, v in found.items()
    }
    same = len({v.shape[1:] for v in features.values()}) == 1
    return features if same and given.all(axis=1).any() else {}


def _worth(
    data: Data, fold: Fold, outputs: dict[str, np.ndarray], metric: Metric
) -> dict[str, float]:
    """Returns each modality's Shapley value on the metric."""
    names = data.modalities
    if any(subset_key(s) not in outputs for s in subsets(names, len(names))):
        return {}
    y = fold.parts["test"].y
    prior = _prior(data.task, fold.parts["train"].y, data.units, len(y))

    def value(subset: tuple[str, ...]) -> float:
        return metric(y, outputs[subset_key(subset)] if subset else prior)

    return {n: float(v) for n, v in shapley_values(value, names).shares.items()}


def _prior(task: str, y: np.ndarray, units: int, count: int) -> np.ndarray:
    """Returns the prediction without any input, from training labels."""
    if task == "regression":
        row = y.reshape(len(y), -1).mean(axis=0)
    elif task == "multi_label":
        share = (y.sum(axis=0) + 0.5) / (len(y) + 1)
        row = np.log(share / (1 - share))
    else:
        counts = np.bincount(y.reshape(-1), minlength=units)
        row = np.log((counts + 0.5) / (len(y) + 0.5 * units))
    return np.tile(row.astype("float32"), (count, 1))
