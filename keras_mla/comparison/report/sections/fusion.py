"""Which fusion is worth it."""

import collections
from typing import Any

from keras_mla.comparison.report import numbers
from keras_mla.comparison.report.blocks import Block, Table, Text
from keras_mla.comparison.report.registry import section
from keras_mla.comparison.results import Comparison

_TITLES = {
    "accuracy": "Accuracy (%)",
    "negative_log_likelihood": "Log loss ↓",
    "calibration_error": "ECE (%) ↓",
    "mean_squared_error": "MSE ↓",
}


@section("How to fuse")
def fusion(comparison: Comparison) -> list[Block] | None:
    """Shows fusions of the predictions of the best method that fuses."""
    if comparison.fusion is None:
        return None
    method, report = comparison.fusion
    whole = max(report.scores, key=len)
    first, *others = next(iter(report.scores[whole].values()))
    blocks: list[Block] = [
        Text(
            f"Ways to fuse the predictions of {method}, the best method on "
            "validation data that fuses any, on validation data; what a "
            "fusion has to fit, it has fitted to other samples than it "
            "predicts. The best weight per sample knows the labels: no "
            "weights that sum to one can do better."
        ),
        Table(
            ["Fusion", *(_TITLES[name] for name in (first, *others))],
            [
                [name, *(_text(*measure) for measure in found.items())]
                for name, found in report.scores[whole].items()
            ],
            "All modalities",
        ),
    ]
    if len(whole) > 1:
        blocks.append(
            Table(
                ["Modalities", *report.scores[whole], "Samples"],
                [
                    [
                        " + ".join(subset),
                        *(_text(first, one[first]) for one in found.values()),
                        report.samples[subset],
                    ]
                    for subset, found in report.scores.items()
                ],
                f"{_TITLES[first]} from some of the modalities",
            )
        )
    if report.covariance:
        blocks.append(_covariance(report))
    return [*blocks, *_pools(comparison, method)]


def _text(measure: str, value: float) -> str:
    percent = "%" in _TITLES[measure]
    return f"{100 * value:.1f}" if percent else f"{value:.3f}"


def _covariance(report: Any) -> Text:
    said = numbers.listed(
        [
            f"{name} {value:+.4f} ± {report.standard_error[name]:.4f}".replace(
                "-", "−"
            )
            for name, value in report.covariance.items()
        ]
    )
    return Text(
        "A weight by sample can help only where it falls as the modality's "
        "loss rises. Covariance of entropy weight and loss, with its standard "
        f"error: {said}.",
        "note",
    )


def _pools(comparison: Comparison, method: str) -> list[Block]:
    """Says what joint calibration kept, and what it switched off."""
    runs = [run for run in comparison.runs_of(method) if run.pool]
    kept = collections.Counter(run.pool["fusion"] for run in runs)
    if not kept:
        return []
    text = "Joint calibration kept " + numbers.listed(
        [
            f"the {name} in {numbers.counted(count, 'run')}"
            for name, count in kept.items()
        ]
    )
    off = collections.Counter(
        name
        for run in runs
        for name, weight in run.pool["weight"].items()
        if weight == 0
    )
    if off:
        text += "; a weight of 0 switched off " + numbers.listed(
            [
                f"{name} in {numbers.counted(count, 'run')}"
                for name, count in off.items()
            ]
        )
    return [Text(text + ".", "note")]
