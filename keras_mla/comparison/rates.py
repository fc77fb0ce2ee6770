"""Comparisons at several missing rates, and the table and figure over them."""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mla.comparison import arguments, metrics, sources, statistics
from keras_mla.comparison.data import Data, Division
from keras_mla.comparison.engine import compare
from keras_mla.comparison.folder import locked
from keras_mla.comparison.frozen import Presets
from keras_mla.comparison.hiding import DRAWS, at_rate
from keras_mla.comparison.report import numbers
from keras_mla.comparison.results import Comparison
from keras_mla.datasets.extras import need

# What the paper's Table 2 prints, and the field beside it.
_METRICS = {
    "single_label": ("accuracy", "balanced_accuracy", "f1_weighted"),
    "multi_label": ("map", "f1_macro", "f1_micro"),
    "regression": ("mae", "rmse", "r2"),
}


@dataclasses.dataclass
class Rates:
    """Comparisons of the same methods at several missing rates.

    Attributes:
        results: dict of missing rate to `Comparison`.
        folder: path of the results.
    """

    results: dict[float, Comparison]
    folder: pathlib.Path

    @property
    def methods(self) -> list[str]:
        """Titles of the methods that have runs at any rate."""
        found = [m for result in self.results.values() for m in result.methods]
        return list(dict.fromkeys(found))

    def scores(self, method: str, metric: str) -> dict[float, list[float]]:
        """Returns a metric of a method's runs on test data, at each rate."""
        return {
            rate: result.scores(method, metrics.named(result.task, metric))
            for rate, result in self.results.items()
            if method in result.methods
        }

    def markdown(self) -> str:
        """Returns a table of methods and rates, for each metric of the task."""
        first = next(iter(self.results.values()))
        return "\n".join(
            self._table(metrics.named(first.task, name))
            for name in _METRICS[first.task]
        )

    def _table(self, metric: metrics.Metric) -> str:
        heads = [f"{100 * rate:g} % missing" for rate in self.results]
        lines = [
            f"{numbers.titled(metric)} on test data",
            "",
            f"| Method | {' | '.join(heads)} |",
            f"| :-- |{' --: |' * len(heads)}",
        ]
        for method in self.methods:
            found = self.scores(method, metric.name)
            cells = [
                numbers.spread(found[rate], metric.text)
                if found.get(rate)
                else "–"
                for rate in self.results
            ]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def save(self) -> None:
        """Writes `missing.md`, `missing.csv` and `missing.svg`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "missing.md").write_text(self.markdown())
        first = next(iter(self.results.values()))
        with (self.folder / "missing.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["method", "missing_rate", "metric", "run", "value"])
            for name in _METRICS[first.task]:
                for method in self.methods:
                    for rate, values in self.scores(method, name).items():
                        lines.writerows(
                            [method, rate, name, run, repr(value)]
                            for run, value in enumerate(values)
                        )
        self._draw(metrics.named(first.task, first.metric))

    def _draw(self, metric: metrics.Metric) -> None:
        """Draws a metric over the rate, a line and a band for each method."""
        need("matplotlib", "draw the metric over missing rates")
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        for method in self.methods:
            found = self.scores(method, metric.name)
            rates = [rate for rate, values in found.items() if values]
            means = np.array([np.mean(found[rate]) for rate in rates])
            spread = np.array(
                [
                    statistics.interval(found[rate]).deviation or 0.0
                    for rate in rates
                ]
            )
            percent = [100 * rate for rate in rates]
            [line] = axes.plot(percent, means, marker="o", label=method)
            axes.fill_between(
                percent,
                means - spread,
                means + spread,
                color=line.get_color(),
                alpha=0.15,
                linewidth=0,
            )
        axes.set_xlabel("Missing entries (%)")
        axes.set_ylabel(f"{metric.title} on test data")
        figure.legend(loc="outside right upper", frameon=False)
        figure.savefig(self.folder / "missing.svg")


def compare_rates(
    data: Any,
    rates: Sequence[float],
    *,
    draw: str = "keep_one",
    draw_seed: int = 0,
    out: str | os.PathLike,
    **options: Any,
) -> Rates:
    """Compares methods at several missing rates.

    At each rate, values of all splits are hidden at random (a sample that
    lacks modalities already keeps at least one of its own), and `compare` runs
    as it does elsewhere: every rate has the same budget, and a killed call
    goes on where it was. A rate above `(M - 1) / M` leaves exactly one
    modality in each sample, if each keeps one.

    Args:
        data: As for `compare`, in memory: batches of files cannot be hidden.
        rates: Missing rates in [0, 1).
        draw: `"keep_one"`: each sample keeps a modality. `"independent"`: each
            entry is hidden by itself, and some samples have nothing.
            `keras_mla.datasets.missing.missing_presence` describes both.
            Defaults to `"keep_one"`.
        draw_seed: int. Seed of what is hidden. Defaults to `0`.
        out: path. Folder of the results: `missing.md`, `missing.csv`,
            `missing.svg`, and a folder with a report for each rate.
        **options: Further arguments of `compare`.

    Returns:
        `Rates`.

    Raises:
        ValueError: If rates, data or arguments do not fit.

    Example:
    ```python
    rates = keras_mla.comparison.compare_rates(
        "digits", [0.1, 0.3, 0.5], methods=["MLA", "Concat"], out="out"
    )
    print(rates.markdown())
    ```
    """
    values = arguments.rates("rates", rates, zero=True)
    if draw not in DRAWS or any(rate >= 1 for rate in values):
        raise ValueError(
            f"Missing rates must be at least 0 and less than 1, and `draw` one "
            f"of {list(DRAWS)}. Received: rates={list(rates)}, draw={draw!r}"
        )
    folder = pathlib.Path(out)
    with locked(folder):
        found, options = loaded(data, folder, options)
        results = {}
        for rate in values:
            hidden = at_rate(found, rate, draw, draw_seed)
            results[rate] = compare(hidden, out=folder / f"{rate:g}", **options)
        result = Rates(results, folder)
        result.save()
    return result


def loaded(
    data: Any, folder: pathlib.Path, options: Mapping[str, Any]
) -> tuple[Data, dict[str, Any]]:
    """Reads data once, for several comparisons.

    Args:
        data: As for `compare`.
        folder: Where features of frozen encoders are kept.
        options: Further arguments of `compare`.

    Returns:
        The data, and the arguments that are left.
    """
    options = dict(options)
    of_data = ("modalities", "label", "columns", "id", "root", "task")
    of_division = ("split", "group", "folds")
    given = {k: options.pop(k) for k in of_data if k in options}
    division = {k: options.pop(k) for k in of_division if k in options}
    if "split_seed" in options:
        division["seed"] = options.pop("split_seed")
    presets = Presets.given(
        options.get("encoders"), folder / "features", options.get("verbose", 1)
    )
    found = sources.load(
        data, division=Division(**division), presets=presets, **given
    )
    return found, options
