"""Which differences between methods are real."""

import math
from typing import Any

from keras_mla.comparison import statistics
from keras_mla.comparison.report import marks, numbers
from keras_mla.comparison.report.blocks import Block, Figure, Table, Text
from keras_mla.comparison.report.drawing import INK, color
from keras_mla.comparison.report.registry import section
from keras_mla.comparison.results import Comparison


@section("Which differences are real")
def differences(comparison: Comparison) -> list[Block] | None:
    """Compares each method with the winner on the same test samples."""
    found = numbers.differences(comparison)
    if not found:
        return None
    metric = numbers.metric_of(comparison)
    unit = " (points)" if metric.percent else ""
    title = f"{metric.title} less that of {comparison.winner}{unit}"
    names = list(found)

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        marks.zero(axis)
        for row, one in enumerate(found.values()):
            if not math.isfinite(one.low + one.high + one.mean):
                continue
            shade = color(0) if one.p_holm < numbers.ALPHA else INK
            full = shade if one.p_holm < numbers.ALPHA else "none"
            axis.plot([one.low, one.high], [row, row], color=shade, lw=1.6)
            axis.plot(one.mean, row, "o", color=shade, mfc=full, ms=6)
        marks.rows_axis(axis, names)
        marks.numbers_axis(axis.xaxis, numbers.tick(metric))

    rows = [
        [
            name,
            numbers.signed(one.mean, metric),
            f"{numbers.signed(one.low, metric)} to "
            f"{numbers.signed(one.high, metric)}",
            numbers.probability(one.p_holm),
            _verdict(one),
        ]
        for name, one in found.items()
    ]
    described = ", ".join(f"{row[0]} {row[1]} ({row[2]})" for row in rows)
    return [
        Text(
            "If a method's line crosses zero, other test samples could as "
            f"well have put the method and {comparison.winner} in the other "
            "order."
        ),
        Figure(
            "differences",
            draw,
            f"{title}, with 95 % intervals: {described}.",
            title,
            (380, marks.height(len(names))),
        ),
        Table(
            [
                "Method",
                f"Difference{unit}",
                "95 % interval",
                "p (Holm)",
                "Verdict",
            ],
            rows,
            words=(0, 4),
        ),
        Text(
            f"Intervals are from a paired bootstrap of {_drawn(comparison)}, "
            f"with {numbers.draws(comparison):,} draws, for the models at "
            f"hand. {_rough(comparison)}p is corrected by Holm's method for "
            "the "
            f"{numbers.counted(len(names), 'comparison')}; below "
            f"{numbers.ALPHA} the verdict counts as sure, and the dot is "
            "filled.",
            "note",
        ),
    ]


def _drawn(comparison: Comparison) -> str:
    """Returns what the bootstrap draws."""
    groups = numbers.group_count(comparison)
    if groups is None:
        return "the test samples"
    return f"the {numbers.counted(groups, 'group')} of test samples"


def _rough(comparison: Comparison) -> str:
    """Returns a warning of few groups."""
    if not numbers.is_rough(comparison):
        return ""
    few = statistics.FEW_GROUPS
    return f"With fewer than {few} groups, the intervals are rough. "


def _verdict(one: Any) -> str:
    if not math.isfinite(one.p_holm):
        return "not defined"
    if one.p_holm >= numbers.ALPHA:
        return "unsure"
    return "better" if one.better else "worse"
