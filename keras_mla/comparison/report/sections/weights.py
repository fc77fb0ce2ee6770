"""How the winner's fusion weighs modalities."""

from typing import Any

import numpy as np

from keras_mla.comparison.report import marks, numbers
from keras_mla.comparison.report.blocks import Block, Figure, Table, Text
from keras_mla.comparison.report.registry import section
from keras_mla.comparison.results import Comparison, Run


@section("How the winner weighs modalities")
def weights(comparison: Comparison) -> list[Block] | None:
    """Compares weights where the prediction is right and where it is wrong."""
    found = mean_weights(comparison)
    if not found:
        return None
    names = list(next(iter(found.values())))
    series = {
        title: [means[name] for name in names] for title, means in found.items()
    }

    def text(value: float) -> str:
        return f"{value:.2f}"

    def draw(figure: Any) -> None:
        marks.dots(figure.subplots(), names, series, text, "mean weight")

    rows = [
        [name, *(numbers.spread(values[i], text) for values in series.values())]
        for i, name in enumerate(names)
    ]
    return [
        Figure(
            "weights",
            draw,
            "Mean weight of each modality; the table has the numbers.",
            f"Mean weight of each modality in {comparison.winner}",
            (380, marks.height(len(names), list(series))),
        ),
        Table(["Modality", *series], rows),
        Text(
            "Means over test samples that have the modality."
            + (
                " A right prediction has all labels right."
                if comparison.task == "multi_label"
                else ""
            ),
            "note",
        ),
    ]


def mean_weights(
    comparison: Comparison,
) -> dict[str, dict[str, list[float]]]:
    """Returns mean weights by outcome and modality.

    Values are as `Comparison.by_fold` returns them.
    """
    found: dict[str, dict[str, list[float]]] = {}
    runs: list[Run] = []
    for run in comparison.runs_of(comparison.winner):
        stored = run.predictions
        outputs = stored.outputs.get(comparison.everything)
        if not stored.weights or outputs is None:
            continue
        runs.append(run)
        for title, rows in _outcomes(
            comparison.task, comparison.y[stored.rows], outputs
        ).items():
            mine = found.setdefault(title, {})
            for index, name in enumerate(comparison.modalities):
                if name not in stored.weights:
                    continue
                has = comparison.presence[stored.rows, index].astype(bool)
                values = stored.weights[name][rows & has]
                mean = values.mean() if values.size else np.nan
                mine.setdefault(name, []).append(float(mean))
    return {
        title: {
            name: comparison.by_fold(runs, values)
            for name, values in means.items()
        }
        for title, means in found.items()
    }


def _outcomes(
    task: str, y: np.ndarray, outputs: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns which rows are right and which are wrong."""
    if task == "regression":
        return {"all samples": np.ones(len(y), bool)}
    if task == "multi_label":
        right = ((outputs > 0) == (y.reshape(outputs.shape) > 0.5)).all(axis=1)
    else:
        right = numbers.predicted(outputs) == y.reshape(-1)
    return {"right": right, "wrong": ~right}
