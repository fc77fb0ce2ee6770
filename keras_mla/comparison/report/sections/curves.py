"""Learning curves."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mla.comparison.report import marks, numbers
from keras_mla.comparison.report.blocks import Block, Figure, Text
from keras_mla.comparison.report.drawing import INK, color, label
from keras_mla.comparison.report.registry import section
from keras_mla.comparison.results import Comparison, Run

WIDTH = 300  # Pixels.


@section("Learning curves")
def curves(comparison: Comparison) -> list[Block] | None:
    """Shows the first run of each method, epoch by epoch."""
    runs = [comparison.runs_of(method)[0] for method in comparison.methods]
    runs = [run for run in runs if any(_lines(comparison, run).values())]
    if not runs:
        return None
    metric = numbers.metric_of(comparison)
    lines = [c for run in runs for c in _lines(comparison, run).values()]
    span = _span(lines, metric.higher_is_better)
    names = [*comparison.modalities, "all"]
    size = (WIDTH, 290 + marks.key_height(names, WIDTH))
    blocks: list[Block] = [
        Figure(
            f"curves-{index + 1}-{_slug(run.method)}",
            _drawing(comparison, run, span),
            f"Loss and validation {metric.title} of {run.method} by epoch.",
            run.method,
            size,
        )
        for index, run in enumerate(runs)
    ]
    note = (
        "Above, the training loss; below, "
        f"{numbers.in_sentence(metric)} on validation data, of all modalities "
        "and of each alone, on the same scale for all methods. Each panel "
        "shows the method's first run; a dot marks the best epoch."
    )
    return [Text(note, "note"), *blocks]


def _lines(comparison: Comparison, run: Run) -> dict[str, Sequence[float]]:
    name = comparison.metric
    found = {
        m: run.curves.get(f"val_{m}_{name}") for m in comparison.modalities
    }
    found["all"] = run.curves.get(f"val_{name}")
    return {m: curve for m, curve in found.items() if curve}


def _span(
    lines: Sequence[Sequence[float]], higher_is_better: bool
) -> tuple[float, float] | None:
    """Returns the limits of all curves, but for their worst first epochs."""
    values = np.concatenate([np.asarray(line, float) for line in lines])
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    ends = [2, 100] if higher_is_better else [0, 98]
    low, high = np.percentile(values, ends)
    room = 0.06 * (high - low) or 0.5
    return float(low - room), float(high + room)


def _drawing(
    comparison: Comparison, run: Run, span: tuple[float, float] | None
) -> Any:
    metric = numbers.metric_of(comparison)
    lines = _lines(comparison, run)
    loss = run.curves.get("loss")

    def draw(figure: Any) -> None:
        ratios = {"height_ratios": [1, 2]}
        if loss:
            above, axis = figure.subplots(2, sharex=True, gridspec_kw=ratios)
            above.plot(range(1, len(loss) + 1), loss, color=INK, lw=1.2)
            above.set_ylabel("loss")
            marks.numbers_axis(above.yaxis, lambda value: f"{value:g}")
        else:
            axis = figure.subplots()
        places = {m: i for i, m in enumerate(comparison.modalities)}
        for name, line in lines.items():
            shade = color(places[name]) if name in places else INK
            width = 1.2 if name in places else 1.8
            epochs = range(1, len(line) + 1)
            axis.plot(epochs, line, color=shade, lw=width, label=label(name))
            best = numbers.best_epoch(run, name)
            if best is not None and best < len(line):
                axis.plot(best + 1, line[best], "o", color=shade, ms=5)
        if span is not None:
            axis.set_ylim(*span)
        marks.numbers_axis(axis.yaxis, numbers.tick(metric))
        axis.xaxis.get_major_locator().set_params(integer=True, nbins=5)
        axis.set_xlabel("epoch")
        axis.set_ylabel(numbers.titled(metric))
        marks.key(axis)

    return draw


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "method"
