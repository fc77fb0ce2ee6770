"""Which fusion is worth it."""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np

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
    fused = [run.method for run in comparison.runs if "scores" in run.fusion]
    if not fused:
        return None
    higher = numbers.metric_of(comparison).higher_is_better
    method = max(
        dict.fromkeys(fused),
        key=lambda m: (1 if higher else -1) * numbers.validation(comparison, m),
    )
    runs = [r for r in comparison.runs_of(method) if "scores" in r.fusion]
    reports = [run.fusion for run in runs]

    def cell(subset: str, name: str, measure: str) -> str:
        # Data that lack a class have no pool with a bias.
        having = [r for r in runs if name in r.fusion["scores"][subset]]
        values = [r.fusion["scores"][subset][name][measure] for r in having]
        return numbers.spread(
            comparison.by_fold(having, values), lambda v: _text(measure, v)
        )

    subsets = list(reports[0]["scores"])
    whole = subsets[-1]
    names = list(dict.fromkeys(n for r in reports for n in r["scores"][whole]))
    measures = list(reports[0]["scores"][whole][names[0]])
    blocks: list[Block] = [
        Text(
            f"Ways to fuse the predictions of {method}, the best method on "
            "validation data that fuses any, on validation data; what a "
            "fusion has to fit, it has fitted to other samples than it "
            "predicts. The best weight per sample knows the labels: it is "
            "nearly the best that weights can do."
        ),
        Table(
            ["Fusion", *(_TITLES[m] for m in measures)],
            [
                [name, *(cell(whole, name, m) for m in measures)]
                for name in names
            ],
            "All modalities",
        ),
    ]
    if len(subsets) > 1:
        rows = [
            [subset, *(cell(subset, name, measures[0]) for name in names)]
            for subset in subsets
        ]
        blocks.append(
            Table(
                ["Modalities", *names],
                rows,
                f"{_TITLES[measures[0]]} from some of the modalities",
            )
        )
    if reports[0]["covariance"]:
        blocks.append(_covariance(reports))
    return [*blocks, _kept(reports)]


def _text(measure: str, value: float) -> str:
    percent = "%" in _TITLES[measure]
    return f"{100 * value:.1f}" if percent else f"{value:.3f}"


def _covariance(reports: list[dict[str, Any]]) -> Text:
    """Says whether a weight by sample can help."""

    def mean(field: str, name: str) -> float:
        return float(np.mean([report[field][name] for report in reports]))

    said = [
        f"{name} {mean('covariance', name):+.4f}".replace("-", "−")
        + f" (standard error {mean('standard_error', name):.4f})"
        for name in reports[0]["covariance"]
    ]
    return Text(
        "A weight by sample can help only where it falls as the modality's "
        "loss rises. Covariance of entropy weight and loss: "
        f"{numbers.listed(said)}.",
        "note",
    )


def _kept(reports: list[dict[str, Any]]) -> Text:
    """Says what joint calibration kept, and what it switched off."""

    def counted(found: Mapping[str, int], before: str = "") -> str:
        return numbers.listed(
            [
                f"{before}{name} in {numbers.counted(count, 'run')}"
                for name, count in found.items()
            ]
        )

    kept = collections.Counter(report["kept"] for report in reports)
    off = collections.Counter(
        name
        for report in reports
        for name, weight in report["weight"].items()
        if weight == 0
    )
    text = f"Joint calibration kept {counted(kept, 'the ')}"
    if off:
        text += f"; a weight of 0 switched off {counted(off)}"
    return Text(f"{text}.", "note")
