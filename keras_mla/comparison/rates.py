"""Comparisons at several missing rates, and the table and figure over them."""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_mla.comparison import arguments, metrics, sources, statistics
from keras_mla.comparison.data import Data, Division
from keras_mla.comparison.engine import compare
from keras_mla.comparison.folder import locked
from keras_mla.comparison.frozen import Presets
from keras_mla.comparison.hiding import (
    DRAWS,
    at_rate,
    at_rates,
    pattern_key,
)
from keras_mla.comparison.methods import DEFAULT, chosen
from keras_mla.comparison.report import numbers
from keras_mla.comparison.results import Comparison
from keras_mla.datasets.extras import need

# A function of a method and a metric that returns, for each missing rate, a
# value for each run.
Scores = Callable[[str, str], dict[float, list[float]]]
# What the paper's Table 2 prints, and the field beside it.
_METRICS = {
    "single_label": ("accuracy", "balanced_accuracy", "f1_weighted"),
    "multi_label": ("map", "f1_macro", "f1_micro"),
    "regression": ("mae", "rmse", "r2"),
}
AT_EACH = "trained at each rate"
_TARGETS = {
    "present": "further present values, which training hides at random",
    "hidden": "the true values of what is missing, which the data hold",
}


@dataclasses.dataclass
class Rates:
    """Comparisons of the same methods at several missing rates.

    Attributes:
        results: dict of missing rate to `Comparison`.
        folder: path of the results.
        once: `Comparison` of models that were each trained for all of the
            rates; or `None`.
    """

    results: dict[float, Comparison]
    folder: pathlib.Path
    once: Comparison | None = None

    @property
    def methods(self) -> list[str]:
        """Titles of the methods that have runs at any rate."""
        found = [m for result in self.results.values() for m in result.methods]
        return list(dict.fromkeys(found))

    def scores(self, method: str, metric: str) -> dict[float, list[float]]:
        """Returns a metric of a method's runs on test data, at each rate.

        Args:
            method: str. Title of the method.
            metric: str. Name of a metric of the task, as `metrics.named` takes
                it.
        """
        return {
            rate: result.scores(method, metrics.named(result.task, metric))
            for rate, result in self.results.items()
            if method in result.methods
        }

    def scores_once(self, method: str, metric: str) -> dict[float, list[float]]:
        """Returns `scores` of models that were trained once for all rates.

        Args:
            method: str. Title of the method.
            metric: str. Name of a metric of the task, as `metrics.named` takes
                it.
        """
        if self.once is None or method not in self.once.methods:
            return {}
        measure = metrics.named(self.once.task, metric)
        return {
            rate: self.once.scores(method, measure, pattern_key(rate))
            for rate in self.results
        }

    def markdown(self) -> str:
        """Returns a table of methods and rates, for each metric of the task.

        Tables of models that were trained once come last.
        """
        first = next(iter(self.results.values()))
        measures = [metrics.named(first.task, n) for n in _METRICS[first.task]]
        text = "\n".join(
            self._table(measure, scores, trained)
            for scores, trained in self._trained()
            for measure in measures
        )
        for kind, words in _TARGETS.items():
            named = [m for m, t in first.targets().items() if t == kind]
            if named:
                text += f"\nLearned from {words}: {', '.join(named)}.\n"
        return text

    def _trained(self) -> Iterator[tuple[Scores, str]]:
        """Yields functions that return scores, and what was trained."""
        yield self.scores, AT_EACH
        if self.once is not None:
            yield self.scores_once, "trained once for all rates"

    def _table(
        self, metric: metrics.Metric, scores: Scores, trained: str
    ) -> str:
        heads = [pattern_key(rate) for rate in self.results]
        lines = [
            f"{numbers.titled(metric)} on test data, {trained}",
            "",
            f"| Method | {' | '.join(heads)} |",
            f"| :-- |{' --: |' * len(heads)}",
        ]
        for method in self.methods:
            found = scores(method, metric.name)
            cells = [
                numbers.spread(found[rate], metric.text)
                if found.get(rate)
                else "–"
                for rate in self.results
            ]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        first = next(iter(self.results.values()))
        if trained == AT_EACH and len(first.modalities) > 1:
            cells = [_alone(found, metric) for found in self.results.values()]
            lines.append(f"| Best modality alone | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def save(self) -> None:
        """Writes `missing.md`, `missing.csv` and `missing.svg`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "missing.md").write_text(self.markdown())
        first = next(iter(self.results.values()))
        with (self.folder / "missing.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(
                ["trained", "method", "missing_rate", "metric", "run", "value"]
            )
            for scores, trained in self._trained():
                for name in _METRICS[first.task]:
                    for method in self.methods:
                        for rate, values in scores(method, name).items():
                            lines.writerows(
                                [trained, method, rate, name, run, repr(value)]
                                for run, value in enumerate(values)
                            )
        self._draw(metrics.named(first.task, first.metric))

    def _draw(self, metric: metrics.Metric) -> None:
        """Draws a metric over the rate, a line and a band for each method."""
        need("matplotlib", "draw the metric over missing rates")
        from matplotlib import colormaps
        from matplotlib.figure import Figure

        panels = list(self._trained())
        colors = colormaps["tab20"]
        size = (4 * len(panels) + 3, 4.5)
        figure = Figure(figsize=size, layout="constrained")
        all_axes: Any = figure.subplots(1, len(panels), sharey=True)
        all_axes = np.atleast_1d(all_axes)
        for axes, (scores, trained) in zip(all_axes, panels, strict=True):
            for index, method in enumerate(self.methods):
                found = scores(method, metric.name)
                rates = [rate for rate, values in found.items() if values]
                means = np.array([np.mean(found[rate]) for rate in rates])
                spread = np.array(
                    [
                        statistics.interval(found[rate]).deviation or 0.0
                        for rate in rates
                    ]
                )
                percent = [100 * rate for rate in rates]
                color = colors(index % colors.N)
                axes.plot(percent, means, marker="o", color=color, label=method)
                axes.fill_between(
                    percent,
                    means - spread,
                    means + spread,
                    color=color,
                    alpha=0.15,
                    linewidth=0,
                )
            axes.set_title(trained)
            axes.set_xlabel("Missing entries (%)")
        all_axes[0].set_ylabel(f"{metric.title} on test data")
        lines, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside right upper", frameon=False)
        figure.savefig(self.folder / "missing.svg")


def compare_rates(
    data: Any,
    rates: Sequence[float],
    *,
    draw: str = "keep_one",
    draw_seed: int = 0,
    chosen_at: float | None = None,
    once: bool = False,
    out: str | os.PathLike,
    **options: Any,
) -> Rates:
    """Compares methods at several missing rates.

    At each rate, values of all splits are hidden at random (a sample that
    lacks modalities already keeps at least one of its own), and `compare` runs
    as it does elsewhere: every rate has the same budget, and a killed call
    goes on where it was. A rate above `(M - 1) / M` leaves exactly one
    modality in each sample, if each keeps one.

    With `once`, each method also trains for all rates together: each rate is
    that of an equal share of the training and of the validation samples. These
    models predict, at each rate, what the models of the rate predict.

    Args:
        data: As for `compare`; batches must be those of a table, or of a
            `Data` that says how to hide values. What is hidden from a table's
            batches is not decoded.
        rates: Missing rates in [0, 1).
        draw: `"keep_one"`: each sample keeps a modality. `"independent"`: each
            entry is hidden by itself, and some samples have nothing.
            `keras_mla.datasets.missing.missing_presence` describes both.
            Defaults to `"keep_one"`.
        draw_seed: int. Seed of what is hidden. Defaults to `0`.
        chosen_at: float. The rate, one of `rates`, at which settings are tried;
            the other rates take what it chose. A method that fails there has
            no runs elsewhere. Defaults to `None`: each rate tries settings.
        once: bool. Whether to train models for all rates too. Defaults to
            `False`.
        out: path. Folder of the results: `missing.md`, `missing.csv`,
            `missing.svg`, and a folder with a report for each rate, and
            `once`.
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
    if chosen_at is not None:
        if chosen_at not in values or options.get("folds"):
            raise ValueError(
                "`chosen_at` must be one of the rates, and needs data with one "
                "split: folds choose their settings by themselves. Received: "
                f"chosen_at={chosen_at}, rates={list(rates)}, "
                f"folds={options.get('folds')}"
            )
    folder = pathlib.Path(out)
    with locked(folder):
        found, options = loaded(data, folder, options)

        def compared(hidden: Data, name: str) -> Comparison:
            return compare(hidden, out=folder / name, **options)

        results: dict[float, Comparison] = {}
        if chosen_at is not None:
            middle = at_rate(found, chosen_at, draw, draw_seed)
            results[chosen_at] = compared(middle, f"{chosen_at:g}")
            options |= _kept(results[chosen_at], options)
            found.facts["settings chosen at"] = pattern_key(chosen_at)
        for rate in values:
            if rate not in results:
                hidden = at_rate(found, rate, draw, draw_seed)
                results[rate] = compared(hidden, f"{rate:g}")
        for_all = None
        if once:
            for_all = compared(at_rates(found, values, draw, draw_seed), "once")
        results = {rate: results[rate] for rate in values}
        result = Rates(results, folder, for_all)
        result.save()
    return result


def _alone(result: Comparison, metric: metrics.Metric) -> str:
    """Returns what the modality that validates best reaches alone."""
    best = numbers.best_alone(result)
    if best is None:
        return "–"
    method, name = best
    found = numbers.spread(result.scores(method, metric, name), metric.text)
    return f"{found} ({name}, of {method})"


def _kept(result: Comparison, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arguments that keep the settings, and the methods with some."""
    settings = result.settings()
    wanted = chosen(options.get("methods", DEFAULT))
    methods = [method for title, method in wanted.items() if title in settings]
    return {"settings": settings, "methods": methods}


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
