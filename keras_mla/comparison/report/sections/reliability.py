"""How far the winner's probabilities can be trusted."""

from typing import Any

import numpy as np

from keras_mla.comparison.report import marks, numbers
from keras_mla.comparison.report.blocks import Block, Figure, Text
from keras_mla.comparison.report.drawing import INK, color
from keras_mla.comparison.report.registry import section
from keras_mla.comparison.results import CALIBRATED, POOLED, Comparison

BINS = 15  # As `keras_mla.metrics.ExpectedCalibrationError` has.


@section("How sure the winner is")
def reliability(comparison: Comparison) -> list[Block] | None:
    """Draws the accuracy of predictions by their confidence."""
    if comparison.task != "single_label":
        return None
    curves, errors = {}, {}
    for title, key in (
        ("before calibration", comparison.everything),
        ("after calibration", CALIBRATED),
        ("after joint calibration", POOLED),
    ):
        runs = [
            run
            for run in comparison.runs_of(comparison.winner)
            if key in run.predictions.outputs
        ]
        found = [
            (comparison.y[p.rows].reshape(-1), p.outputs[key])
            for p in (run.predictions for run in runs)
        ]
        if found:
            errors[title] = comparison.by_fold(
                runs, [calibration(*one)[1] for one in found]
            )
            y = np.concatenate([labels for labels, _ in found])
            outputs = np.concatenate([logits for _, logits in found])
            curves[title] = calibration(y, outputs)[0]
    if not curves:
        return None

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color=INK, linewidth=0.8)
        for index, (title, curve) in enumerate(curves.items()):
            shade = color((1, 0, 2)[index])
            full = shade if index else "none"
            axis.plot(
                curve[:, 0],
                curve[:, 1],
                "o-",
                color=shade,
                markerfacecolor=full,
                markersize=5,
                linewidth=1.4,
                label=title,
            )
        axis.set_xlim(0, 1.02)
        axis.set_ylim(0, 1.02)
        axis.set_aspect("equal")
        axis.set_xlabel("probability of the predicted class (%)")
        axis.set_ylabel("right (%)")
        for one in (axis.xaxis, axis.yaxis):
            marks.numbers_axis(one, lambda value: f"{100 * value:.0f}")
            one.set_ticks([0, 0.25, 0.5, 0.75, 1])
        marks.key(axis)

    said = numbers.listed(
        [
            f"{numbers.spread(found, _percent)}{numbers.PERCENT} {title}"
            for title, found in errors.items()
        ]
    )
    return [
        Figure(
            "reliability",
            draw,
            "Share of right predictions by the probability of the predicted "
            f"class. The calibration error (ECE) is {said}.",
            "Share of right predictions by probability",
            (340, 370),
        ),
        Text(
            f"On the line, {comparison.winner} is as often right as its "
            "probability says; below the line it is too sure. The mean "
            f"distance from the line (expected calibration error, ECE, {BINS} "
            f"bins) is {said}."
        ),
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def calibration(y: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the points of the diagram, and the calibration error.

    Args:
        y: int array `(n,)`. Classes.
        logits: array `(n, classes)`.

    Returns:
        Array `(filled bins, 2)` of mean confidence and accuracy; the error.
    """
    logits = logits.astype("float64")
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    confidence = (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)
    right = logits.argmax(axis=1) == y
    keep = np.isfinite(confidence)
    confidence, right = confidence[keep], right[keep]
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)
    sure = np.bincount(place, confidence, BINS)
    hits = np.bincount(place, right, BINS)
    filled = count > 0
    points = np.stack([sure, hits], axis=1)[filled] / count[filled, None]
    error = np.abs(sure - hits).sum() / max(len(confidence), 1)
    return points, float(error)
