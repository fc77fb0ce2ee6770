"""What the winner gets wrong."""

from typing import Any

import numpy as np

from keras_mla.comparison.report import marks, numbers
from keras_mla.comparison.report.blocks import Block, Figure, Table, Text
from keras_mla.comparison.report.drawing import INK, color, label
from keras_mla.comparison.report.registry import section
from keras_mla.comparison.results import Comparison

MOST_CLASSES = 30
MOST_PAIRS = 25
MOST_POINTS = 1000
MOST_UNITS = 6
SCORES = ("precision", "recall", "F1")


@section("What the winner confuses")
def confusion(comparison: Comparison) -> list[Block] | None:
    """Counts each pair of a true and a predicted class."""
    if comparison.task != "single_label":
        return None
    counts = confusion_matrix(comparison)
    if counts is None:
        return None
    total = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(total, 1)
    names = [numbers.class_name(comparison, i) for i in range(len(counts))]
    pairs = _pairs(counts, shares, names)
    note = Text(
        f"Predictions of {comparison.winner} on test data, all runs counted "
        "together.",
        "note",
    )
    if len(names) > MOST_CLASSES:
        return [note, pairs] if pairs.rows else [note, _no_error()]

    side = max(320, 110 + 24 * len(names))

    def draw(figure: Any) -> None:
        from matplotlib.patches import Rectangle

        axis = figure.subplots()
        small = 12 if len(names) <= 12 else 9
        for row, column in np.argwhere(counts > 0):
            share = shares[row, column]
            right = row == column
            axis.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5),
                    1,
                    1,
                    facecolor=color(0 if right else 1),
                    alpha=0.1 + 0.5 * share,
                    linewidth=0,
                )
            )
            axis.text(
                column,
                row,
                f"{100 * share:.0f}",
                ha="center",
                va="center",
                fontsize=small,
            )
        axis.set_xlim(-0.5, len(names) - 0.5)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_aspect("equal")
        texts = [label(name, 16) for name in names]
        turned = (
            90 if 8 * max(map(len, texts)) > (side - 110) / len(texts) else 0
        )
        axis.set_xticks(range(len(names)), texts, rotation=turned)
        axis.set_yticks(range(len(names)), texts)
        axis.tick_params(length=0, labelsize=small)
        axis.spines[:].set_visible(False)
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")

    blocks: list[Block] = [
        note,
        Figure(
            "confusion",
            draw,
            f"Confusion matrix of {comparison.winner} with {len(names)} "
            "classes; the table has the most frequent errors.",
            "Share of each true class's predictions (%)",
            (side, side),
        ),
    ]
    if pairs.rows:
        blocks.append(pairs)
    return blocks


def confusion_matrix(comparison: Comparison) -> np.ndarray | None:
    """Returns counts `(true, predicted)` of all the winner's runs."""
    runs = [run.predictions for run in comparison.runs_of(comparison.winner)]
    key = comparison.everything
    runs = [found for found in runs if key in found.outputs]
    if not runs:
        return None
    classes = runs[0].outputs[key].shape[1]
    counts = np.zeros((classes, classes), int)
    for found in runs:
        true = comparison.y[found.rows].reshape(-1).astype(int)
        np.add.at(counts, (true, numbers.predicted(found.outputs[key])), 1)
    return counts


def _no_error() -> Text:
    return Text("The winner makes no error.")


def _pairs(counts: np.ndarray, shares: np.ndarray, names: list[str]) -> Table:
    """Returns the most frequent errors."""
    errors = counts * (1 - np.eye(len(counts), dtype=int))
    found = np.argsort(-errors, axis=None, kind="stable")
    found = found[: MOST_PAIRS if len(names) > MOST_CLASSES else 10]
    pairs = [divmod(int(place), len(counts)) for place in found]
    rows = [
        [
            names[true],
            names[wrong],
            f"{100 * shares[true, wrong]:.1f}",
            int(errors[true, wrong]),
        ]
        for true, wrong in pairs
        if errors[true, wrong]
    ]
    return Table(
        ["True", "Predicted", "Share of the true class (%)", "Count"],
        rows,
        "The most frequent errors",
        words=(0, 1),
    )


@section("Each label")
def labels(comparison: Comparison) -> list[Block] | None:
    """Shows precision, recall and F1 of each label of the winner."""
    if comparison.task != "multi_label":
        return None
    key = comparison.everything
    runs = [
        run
        for run in comparison.runs_of(comparison.winner)
        if key in run.predictions.outputs
    ]
    if not runs:
        return None
    scores = np.stack(
        [
            label_scores(comparison.y[found.rows], found.outputs[key])
            for found in (run.predictions for run in runs)
        ],
        axis=-1,
    )
    # Runs or folds, labels, three scores.
    values = np.apply_along_axis(
        lambda one: comparison.by_fold(runs, one), -1, scores
    ).transpose(2, 0, 1)
    names = [numbers.class_name(comparison, i) for i in range(values.shape[1])]

    def text(value: float) -> str:
        return f"{100 * value:.1f}"

    def spread(index: int, score: int) -> str:
        return numbers.spread(values[:, index, score].tolist(), text)

    support = np.asarray(comparison.y).astype(bool).sum(axis=0)
    rows = [
        [name, *(spread(index, score) for score in range(3)), support[index]]
        for index, name in enumerate(names)
    ]
    table = Table(
        ["Label", "Precision (%)", "Recall (%)", "F1 (%)", "Samples"], rows
    )
    note = Text(
        f"Labels of {comparison.winner} at a probability above 0.5, on test "
        "data. Precision is the share of predicted labels that are true; "
        "recall is the share of true labels that are predicted.",
        "note",
    )
    if len(names) > MOST_CLASSES:
        return [note, table]

    def draw(figure: Any) -> None:
        series = {
            title: [values[:, index, score] for index in range(len(names))]
            for score, title in enumerate(SCORES)
        }
        marks.dots(figure.subplots(), names, series, text, "%")

    picture = Figure(
        "labels",
        draw,
        "Precision, recall and F1 of each label; the table has the numbers.",
        "Precision, recall and F1 of each label (%)",
        (380, marks.height(len(names), SCORES)),
    )
    return [note, picture, table]


def label_scores(y: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Returns precision, recall and F1 of each label; 0 for 0 by 0."""
    true, said = np.asarray(y).astype(bool), logits > 0
    hits = (true & said).sum(axis=0)
    return np.stack(
        [
            hits / np.maximum(said.sum(axis=0), 1),
            hits / np.maximum(true.sum(axis=0), 1),
            2 * hits / np.maximum(true.sum(axis=0) + said.sum(axis=0), 1),
        ],
        axis=1,
    )


@section("Predicted against true")
def regression(comparison: Comparison) -> list[Block] | None:
    """Shows the winner's predictions beside the true values."""
    if comparison.task != "regression":
        return None
    found = comparison.outputs_of(comparison.winner)
    if not found:
        return None
    outputs = found[0].reshape(len(comparison.y), -1)
    y = np.asarray(comparison.y, float).reshape(outputs.shape)
    rows = np.arange(len(y))
    if len(rows) > MOST_POINTS:
        rows = np.random.default_rng(0).permutation(rows)[:MOST_POINTS]

    def drawing(unit: int) -> Any:
        def draw(figure: Any) -> None:
            axis = figure.subplots()
            true, said = y[rows, unit], outputs[rows, unit]
            axis.plot(
                true,
                said,
                "o",
                color=color(0),
                markersize=4,
                alpha=0.5,
                markeredgewidth=0,
            )
            ends = [y[:, unit].min(), y[:, unit].max()]
            axis.plot(ends, ends, color=INK, linewidth=0.8)
            axis.set_xlabel("true")
            axis.set_ylabel("predicted")
            for one in (axis.xaxis, axis.yaxis):
                marks.numbers_axis(one, lambda value: f"{value:g}")

        return draw

    units = outputs.shape[1]
    blocks: list[Block] = [
        Text(
            f"Test samples as {comparison.winner} predicts them with its first "
            "seed; the line is where predictions are right."
            + (
                f" {MOST_POINTS} samples drawn at random are shown."
                if len(rows) < len(y)
                else ""
            )
            + (
                f" The first {MOST_UNITS} of {units} values are shown."
                if units > MOST_UNITS
                else ""
            ),
            "note",
        )
    ]
    for unit in range(min(units, MOST_UNITS)):
        name = f"value {unit + 1}" if units > 1 else ""
        blocks.append(
            Figure(
                f"predicted-{unit + 1}" if units > 1 else "predicted",
                drawing(unit),
                f"Predicted against true {name or 'values'} of "
                f"{len(rows)} test samples.",
                name,
                (300, 300),
            )
        )
    return blocks
