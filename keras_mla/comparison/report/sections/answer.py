"""The answer in three sentences."""

import math
from typing import Any

import numpy as np

from keras_mla.comparison.report import numbers
from keras_mla.comparison.report.blocks import Block, Text
from keras_mla.comparison.report.registry import section
from keras_mla.comparison.results import Comparison


@section("The answer")
def answer(comparison: Comparison) -> list[Block]:
    """Says who wins, what modalities are worth, and what follows."""
    if comparison.winner not in comparison.methods:
        return [
            Text(f"No method has finished. {_left_out(comparison)}".strip())
        ]
    sentences = (
        _winner(comparison),
        _modalities(comparison),
        f"{_advice(comparison)} {_left_out(comparison)}".strip(),
    )
    return [Text(sentence, "lead") for sentence in sentences]


def _winner(comparison: Comparison) -> str:
    metric = numbers.metric_of(comparison)
    winner = comparison.winner
    scores = numbers.scores(comparison, winner, metric)
    text = (
        f"{winner}, chosen on validation data, reaches "
        f"{numbers.spread(scores, metric.text)}"
        f"{numbers.PERCENT if metric.percent else ''} "
        f"{numbers.in_sentence(metric)} on the test data of {comparison.name}"
    )
    parts = []
    following = _next(comparison)
    if following is not None:
        found = numbers.differences(comparison).get(following)
        if found is not None and math.isfinite(found.mean):
            sign = -1 if metric.higher_is_better else 1
            low, high = sorted((sign * found.low, sign * found.high))
            rough = "rough " if numbers.is_rough(comparison) else ""
            parts.append(
                f"{_apart(sign * found.mean, metric)} {following}, the next on "
                f"validation data ({rough}95{numbers.PERCENT} interval of the "
                f"advantage {numbers.signed(low, metric)} to "
                f"{numbers.signed(high, metric)}, "
                f"p {_equals(found.p_holm)})"
            )
    alone = numbers.best_alone(comparison)
    if alone is not None:
        method, name = alone
        value = float(np.mean(numbers.scores(comparison, method, metric, name)))
        gain = float(np.mean(scores)) - value
        gain = gain if metric.higher_is_better else -gain
        if math.isfinite(gain):
            by = "its own" if method == winner else f"{method}'s"
            parts.append(
                f"{_apart(gain, metric)} {by} {name} alone, the best single "
                "modality on validation data"
            )
    return text + (f": {', and '.join(parts)}." if parts else ".")


def _modalities(comparison: Comparison) -> str:
    metric = numbers.metric_of(comparison)
    winner = comparison.winner
    alone = {
        name: float(np.mean(found))
        for name in comparison.modalities
        if (found := numbers.scores(comparison, winner, metric, name))
    }
    worths = numbers.collected(comparison, "worth").get(winner, {})
    points = " points" if metric.percent else ""
    parts = []
    if alone:
        reached = [
            f"{numbers.said(value, metric)} ({name})"
            for name, value in alone.items()
        ]
        parts.append(
            f"alone, the modalities of {winner} reach {numbers.listed(reached)}"
        )
    if worths:
        added = [
            f"{numbers.signed(float(np.mean(worths[name])), metric)}{points} "
            f"({name})"
            for name in comparison.modalities
            if name in worths
        ]
        parts.append(
            f"on average over the orders in which modalities join, "
            f"{'each improves' if alone else f'those of {winner} improve'} "
            f"{numbers.in_sentence(metric)} by {numbers.listed(added)}"
        )
    if not parts:
        return (
            f"What each modality is worth to {winner} was not measured, for "
            "lack of predictions from single modalities."
        )
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _advice(comparison: Comparison) -> str:
    winner = comparison.winner
    found = numbers.differences(comparison)
    if len(comparison.methods) == 1:
        return f"{winner} is the only method that has finished."
    sure = {m: d for m, d in found.items() if d.p_holm < numbers.ALPHA}
    above = [m for m, d in sure.items() if d.better]
    below = [m for m, d in sure.items() if not d.better]
    equal = [m for m in found if m not in sure]
    parts = []
    if above:
        parts.append(
            f"On the test data, {numbers.listed(above)} "
            f"{'is' if len(above) == 1 else 'are'} reliably better than "
            f"{winner}, which validation data preferred"
        )
    else:
        parts.append(f"No method is reliably better than {winner}")
    if equal:
        parts.append(
            f"the test data do not separate {winner} from "
            f"{numbers.listed(equal)}, so the simpler or faster of them is as "
            "good a choice"
        )
    if below:
        parts.append(
            f"{numbers.listed(below)} "
            f"{'is' if len(below) == 1 else 'are'} reliably worse"
        )
    return "; ".join(parts) + "."


def _left_out(comparison: Comparison) -> str:
    parts = []
    if comparison.failures:
        parts.append(f"failed: {numbers.listed(list(comparison.failures))}")
    if comparison.missing:
        parts.append(
            numbers.counted(len(comparison.missing), "part was", "parts were")
            + " left out for lack of time"
        )
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _next(comparison: Comparison) -> str | None:
    """Returns the second method on validation data."""
    metric = numbers.metric_of(comparison)
    sign = 1 if metric.higher_is_better else -1
    others = {
        method: sign * score
        for method in comparison.methods
        if method != comparison.winner
        and math.isfinite(score := numbers.validation(comparison, method))
    }
    return max(others, key=lambda method: others[method]) if others else None


def _apart(gain: float, metric: Any) -> str:
    """Returns how much better one is than another: `"2 points better than"`."""
    text = metric.text(abs(gain))
    if not text.strip("0."):
        return "as good as"
    unit = " points" if metric.percent else ""
    return f"{text}{unit} {'better' if gain > 0 else 'worse'} than"


def _equals(p: float) -> str:
    text = numbers.probability(p)
    return text if text.startswith("<") else f"= {text}"
