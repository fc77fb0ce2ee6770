"""What modalities are worth, and how far apart they lie."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_mla.comparison.report import marks, numbers
from keras_mla.comparison.report.blocks import Block, Figure, Table, Text
from keras_mla.comparison.report.registry import section
from keras_mla.comparison.results import Comparison


@section("What each modality is worth")
def worth(comparison: Comparison) -> list[Block] | None:
    """Shows Shapley values of the modalities."""
    metric = numbers.metric_of(comparison)
    found = numbers.collected(comparison, "worth")
    if not found:
        return None
    unit = " (points)" if metric.percent else ""
    series = {
        name: [values.get(name, []) for values in found.values()]
        for name in comparison.modalities
    }

    def text(value: float) -> str:
        return numbers.signed(value, metric)

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        marks.zero(axis)
        names = list(found)
        marks.dots(
            axis,
            names,
            series,
            numbers.tick(metric),
            f"Shapley value{unit}",
            comparison.winner,
        )

    return [
        Text(
            "The Shapley value of a modality is how much "
            f"{numbers.in_sentence(metric)} improves when the modality joins, "
            "averaged over all orders of joining; the values of all "
            "modalities add up to what all of them improve over a guess "
            "without any."
        ),
        Figure(
            "worth",
            draw,
            "Shapley value of each modality for each method; the table has "
            "the numbers.",
            f"Shapley values{unit} on {numbers.in_sentence(metric)}",
            (380, marks.height(len(found), list(series))),
        ),
        _table(comparison, found, comparison.modalities, text, metric.text),
    ]


@section("The gap between modalities")
def gap(comparison: Comparison) -> list[Block] | None:
    """Shows how far apart the features of modalities lie."""
    found = numbers.collected(comparison, "gap")
    if not found:
        return None
    pairs = list(dict.fromkeys(p for gaps in found.values() for p in gaps))

    def text(value: float) -> str:
        return f"{value:.2f}"

    def draw(figure: Any) -> None:
        series = {
            pair: [gaps.get(pair, []) for gaps in found.values()]
            for pair in pairs
        }
        axis = figure.subplots()
        marks.dots(axis, list(found), series, text, "gap", comparison.winner)
        axis.set_xlim(left=min(0.0, axis.get_xlim()[0]))

    blocks: list[Block] = [
        Text(
            "The gap is the distance between the mean directions of two "
            "modalities' features: 0 if they coincide, at most 2."
        )
    ]
    if len(pairs) <= 6:
        blocks.append(
            Figure(
                "gap",
                draw,
                "Gap of each pair of modalities for each method; the table "
                "has the numbers.",
                "Distance of mean directions",
                (380, marks.height(len(found), pairs)),
            )
        )
    return [*blocks, _table(comparison, found, pairs, text)]


def _table(
    comparison: Comparison,
    found: Mapping[str, Mapping[str, list[float]]],
    columns: Sequence[str],
    text: numbers.Format,
    deviation: numbers.Format | None = None,
) -> Table:
    rows = [
        [
            method,
            *(
                numbers.spread(values.get(c, []), text, deviation)
                for c in columns
            ),
        ]
        for method, values in found.items()
    ]
    marked = [
        i for i, method in enumerate(found) if method == comparison.winner
    ]
    return Table(["Method", *columns], rows, marked=marked)
