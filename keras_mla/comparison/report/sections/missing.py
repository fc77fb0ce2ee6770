"""What happens if modalities are missing."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mla.comparison.report import marks, numbers
from keras_mla.comparison.report.blocks import Block, Figure, Table, Text
from keras_mla.comparison.report.drawing import color, label
from keras_mla.comparison.report.registry import section
from keras_mla.comparison.results import (
    Comparison,
    Predictions,
    subset_key,
    subsets,
)

RATES = tuple(round(0.1 * step, 1) for step in range(8))
DRAWS = 20
# Outputs of all runs that are measured at a rate: all rates take seconds.
OUTPUTS = 2_000_000
FEWEST_SAMPLES = 1_000
# Beyond it, comparisons do not predict with all subsets.
MOST_MODALITIES = 5


@section("Subsets of modalities")
def by_subset(comparison: Comparison) -> list[Block] | None:
    """Compares predictions from each subset of modalities."""
    if len(comparison.modalities) < 2:
        return None
    metric = numbers.metric_of(comparison)
    keys = [subset_key(subset) for subset in subsets(comparison.modalities)]
    scores = {
        method: [
            numbers.scores(comparison, method, metric, key) for key in keys
        ]
        for method in comparison.methods
    }
    keep = [i for i in range(len(keys)) if any(s[i] for s in scores.values())]
    # Single modalities and all of them have their own section.
    if len(keep) <= len(comparison.modalities) + 1:
        return None
    named = subsets(comparison.modalities)
    titles = [_title(named[index], comparison.modalities) for index in keep]
    rows = [
        [method, *(numbers.spread(found[i], metric.text) for i in keep)]
        for method, found in scores.items()
    ]
    winner = comparison.winner
    title = numbers.titled(metric)
    blocks: list[Block] = []
    if winner in scores:
        values = [scores[winner][index] for index in keep]

        def draw(figure: Any) -> None:
            axis = figure.subplots()
            tick = numbers.tick(metric)
            marks.dots(axis, titles, {"": values}, tick, title)

        blocks.append(
            Figure(
                "subsets",
                draw,
                f"{title} of {winner} from each subset of modalities; the "
                "table has the numbers.",
                f"{winner}, from each subset of modalities",
                (380, marks.height(len(keep))),
            )
        )
    marked = [i for i, method in enumerate(scores) if method == winner]
    table = Table(["Method", *titles], rows, title, marked=marked)
    return [*blocks, table]


@section("Missing modalities")
def by_rate(comparison: Comparison) -> list[Block] | None:
    """Hides modalities of test samples at random."""
    modalities = comparison.modalities
    if not 2 <= len(modalities) <= MOST_MODALITIES:
        return None
    metric = numbers.metric_of(comparison)
    keys = {subset_key(subset) for subset in subsets(modalities)}
    found = {
        method: [
            run
            for run in comparison.runs_of(method)
            if keys <= set(run.predictions.outputs)
        ]
        for method in comparison.methods
    }
    found = {method: runs for method, runs in found.items() if runs}
    if not found:
        return None
    draws, sampled = measured(comparison, sum(map(len, found.values())))
    patterns = [kept_modalities(comparison, rate, draws) for rate in RATES]
    curves = {
        method: [
            comparison.by_fold(
                runs,
                [
                    _score(comparison, metric, run.predictions, kept, sampled)
                    for run in runs
                ],
            )
            for kept in patterns
        ]
        for method, runs in found.items()
    }
    title = numbers.titled(metric)

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for index, (method, found) in enumerate(curves.items()):
            best = method == comparison.winner
            axis.plot(
                RATES,
                [np.mean(values) for values in found],
                # Colours come again after the eighth.
                ("-", "--", ":")[index // 8 % 3],
                color=color(index),
                linewidth=2.2 if best else 1.2,
                label=label(method),
            )
        axis.set_xlabel("rate at which modalities are hidden (%)")
        axis.set_ylabel(title)
        marks.numbers_axis(axis.xaxis, lambda value: f"{100 * value:.0f}")
        marks.numbers_axis(axis.yaxis, numbers.tick(metric))
        marks.key(axis)

    rows = [
        [method, *(numbers.spread(values, metric.text) for values in found)]
        for method, found in curves.items()
    ]
    marked = [i for i, m in enumerate(curves) if m == comparison.winner]
    return [
        Figure(
            "missing",
            draw,
            f"{title} of each method by the rate of hidden modalities; the "
            "table has the numbers.",
            f"{title} by the rate of hidden modalities",
            (380, 250 + marks.key_height(list(curves))),
        ),
        Table(
            [
                "Method",
                *(f"{100 * rate:.0f}{numbers.PERCENT}" for rate in RATES),
            ],
            rows,
            title,
            marked=marked,
        ),
        Text(
            "Each modality of each test sample is hidden with this "
            "probability, independently of the others, but each sample keeps "
            f"one of its modalities. {_drawn(draws, sampled)}",
            "note",
        ),
    ]


def measured(comparison: Comparison, runs: int) -> tuple[int, np.ndarray]:
    """Returns the number of draws, and which samples are measured.

    Few draws are enough for many samples. Beyond `OUTPUTS`, a part of the
    samples is measured, drawn at random.

    Args:
        comparison: `Comparison`.
        runs: int. The number of runs.

    Returns:
        int; bool array `(samples,)`.
    """
    units = comparison.runs[0].predictions.outputs[comparison.everything].shape
    count = len(comparison.y)
    most = max(FEWEST_SAMPLES, OUTPUTS // (runs * units[1]))
    sampled: np.ndarray = np.zeros(count, bool)
    sampled[np.random.default_rng(0).permutation(count)[:most]] = True
    return min(DRAWS, max(1, most // max(count, 1))), sampled


def _drawn(draws: int, sampled: np.ndarray) -> str:
    """Returns what values are means over, in words."""
    text = (
        "Values are of one draw"
        if draws == 1
        else f"Values are means over {draws} draws"
    )
    text += ", the same for all methods and runs."
    if not sampled.all():
        text += (
            f" They are of {sampled.sum():,} of the {len(sampled):,} test "
            "samples, chosen at random."
        )
    return text


def kept_modalities(
    comparison: Comparison, rate: float, draws: int = DRAWS
) -> np.ndarray:
    """Draws which modalities of each test sample are not hidden.

    Returns:
        Bool array `(draws, samples, modalities)`. A sample keeps at least one
        of the modalities that it has.
    """
    has = np.asarray(comparison.presence, bool)
    if not rate:
        return has[None]
    rng = np.random.default_rng([int(round(1000 * rate)), 0])
    kept = has & (rng.random((draws, *has.shape)) >= rate)
    # One that the sample has, each with the same probability.
    order = np.where(has, rng.random((draws, *has.shape)), -1.0)
    one = np.arange(has.shape[1]) == order.argmax(axis=-1)[..., None]
    empty = ~kept.any(axis=-1, keepdims=True)
    return np.where(empty, one & has, kept)


def _score(
    comparison: Comparison,
    metric: Any,
    predictions: Predictions,
    patterns: np.ndarray,
    sampled: np.ndarray,
) -> float:
    """Returns the metric with hidden modalities, the mean over patterns."""
    if not sampled.all():
        rows = sampled[predictions.rows]
        predictions = Predictions(
            predictions.rows[rows],
            {key: found[rows] for key, found in predictions.outputs.items()},
        )
    y = comparison.y[predictions.rows]
    # A sampler costs less than most metrics, which check more.
    once = np.ones((len(y), 1))
    scores = []
    for kept in patterns[:, predictions.rows]:
        outputs = hidden(comparison.modalities, predictions, kept)
        scores.append(metric.sampler(y, outputs)(once)[0])
    return float(np.mean(scores))


def hidden(
    modalities: Sequence[str], predictions: Predictions, kept: np.ndarray
) -> np.ndarray:
    """Returns each sample's outputs from the modalities that it keeps.

    Args:
        modalities: Sequence of names.
        predictions: `Predictions`, with outputs of all subsets.
        kept: bool array `(rows, modalities)`.
    """
    outputs = predictions.outputs[subset_key(modalities)].copy()
    # Numbers are found faster than rows.
    codes = kept @ (1 << np.arange(len(modalities)))
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        names = list(itertools.compress(modalities, kept[rows[0]]))
        if names:  # A sample without any modality stays as it is.
            outputs[rows] = predictions.outputs[subset_key(names)][rows]
    return outputs


def _title(subset: Sequence[str], modalities: Sequence[str]) -> str:
    """Returns a short name of a subset."""
    absent = [name for name in modalities if name not in subset]
    if not absent:
        return "all"
    if len(absent) == 1 and len(modalities) > 3:
        return f"all but {absent[0]}"
    return " + ".join(subset)
