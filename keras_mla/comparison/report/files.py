"""The report's tables as files."""

import csv
import html
import math
import pathlib
import re
from typing import Any

from keras_mla.comparison import statistics
from keras_mla.comparison.report import numbers
from keras_mla.comparison.report.sections.methods import table
from keras_mla.comparison.results import CALIBRATED, POOLED, Comparison

# Names of files may have bytes that are no text.
# The comparison's names of what a report of the fusion measures.
_METRICS = {
    "negative_log_likelihood": "log_loss",
    "calibration_error": "ece",
    "mean_squared_error": "mse",
}
ENCODING: Any = {"encoding": "utf-8", "errors": "backslashreplace"}


def write_csv(comparison: Comparison, path: pathlib.Path) -> None:
    """Writes every metric of every method and part, not rounded.

    The part `"validation"` is the fused prediction of the validation split in
    the best epoch. `"validation, calibrated"` is that with temperatures, and
    `"validation, joint"` that of the fusion which joint calibration kept, both
    fitted to other samples than they predict.
    """
    parts = [("all", comparison.everything)]
    parts += [("calibrated", CALIBRATED), ("pooled", POOLED)]
    if len(comparison.modalities) > 1:
        parts += [(name, name) for name in comparison.modalities]
    with path.open("w", newline="", **ENCODING) as file:
        lines = csv.writer(file)
        # A run is of a seed; a fold has several, of which it is the mean.
        over = numbers.over(comparison).replace("seeds", "runs")
        lines.writerow(["method", "part", "metric", "mean", "deviation", over])

        def write(method: str, part: str, metric: str, values: Any) -> None:
            if values:
                found = statistics.interval(values)
                mean, deviation = _number(found.mean), _number(found.deviation)
                lines.writerow(
                    [method, part, metric, mean, deviation, found.count]
                )

        for method in comparison.methods:
            for part, key in parts:
                for metric in numbers.all_metrics(comparison):
                    values = numbers.scores(comparison, method, metric, key)
                    write(method, part, metric.name, values)
            for part, scores in _validation(comparison, method).items():
                for name, values in scores.items():
                    write(method, part, name, values)


def _validation(
    comparison: Comparison, method: str
) -> dict[str, dict[str, list[float]]]:
    """Returns a method's scores on validation data, by part and metric."""
    runs = comparison.runs_of(method)

    def by_name(scores: list[dict[str, float]]) -> dict[str, list[float]]:
        return {
            name: comparison.by_fold(runs, [run[name] for run in scores])
            for name in scores[0]
        }

    found = {"validation": by_name([run.validation for run in runs])}
    everything = comparison.everything
    fusions = [run.fusion for run in runs]
    for part, scores in (
        (
            "validation, calibrated",
            [f["calibrated"] for f in fusions if "calibrated" in f],
        ),
        (
            "validation, joint",
            [
                f["scores"][everything][f["kept"]]
                for f in fusions
                if "scores" in f
            ],
        ),
    ):
        if len(scores) == len(runs):
            found[part] = by_name(
                [
                    {_METRICS.get(name, name): v for name, v in one.items()}
                    for one in scores
                ]
            )
    return found


def write_markdown(comparison: Comparison, path: pathlib.Path) -> None:
    """Writes the table of methods in Markdown, the winner in bold."""
    found = table(comparison)
    marks = [
        ":--" if i in found.words else "--:" for i in range(len(found.columns))
    ]
    lines = [[_escaped(c) for c in found.columns], marks]
    for index, row in enumerate(found.rows):
        cells = [_escaped(cell) for cell in row]
        if index in found.marked:
            cells = [f"**{cell}**" for cell in cells]
        lines.append(cells)
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    path.write_text(text, **ENCODING)


def _number(value: float | None) -> Any:
    return "" if value is None or math.isnan(value) else repr(value)


def _escaped(cell: Any) -> str:
    text = html.escape(" ".join(str(cell).split()), quote=False)
    return re.sub(r"([\\`*_|\[\]~])", r"\\\1", text)
