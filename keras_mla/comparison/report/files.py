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
ENCODING: Any = {"encoding": "utf-8", "errors": "backslashreplace"}


def write_csv(comparison: Comparison, path: pathlib.Path) -> None:
    """Writes every metric of every method and part, not rounded."""
    parts = {"all": comparison.everything}
    parts |= {CALIBRATED: CALIBRATED, POOLED: POOLED}
    if len(comparison.modalities) > 1:
        parts |= {name: name for name in comparison.modalities}
    with path.open("w", newline="", **ENCODING) as file:
        lines = csv.writer(file)
        # A run is of a seed; a fold has several, of which it is the mean.
        over = numbers.over(comparison).replace("seeds", "runs")
        lines.writerow(["method", "part", "metric", "mean", "deviation", over])
        for method in comparison.methods:
            for part, key in parts.items():
                for metric in numbers.all_metrics(comparison):
                    values = numbers.scores(comparison, method, metric, key)
                    if values:
                        found = statistics.interval(values)
                        lines.writerow(
                            [
                                method,
                                part,
                                metric.name,
                                _number(found.mean),
                                _number(found.deviation),
                                found.count,
                            ]
                        )


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
