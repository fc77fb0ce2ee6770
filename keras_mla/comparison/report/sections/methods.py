"""The table of methods."""

from keras_mla.comparison.report import marks, numbers
from keras_mla.comparison.report.blocks import Block, Figure, Table, Text
from keras_mla.comparison.report.registry import section
from keras_mla.comparison.results import Comparison


@section("The methods")
def methods(comparison: Comparison) -> list[Block] | None:
    """Shows every metric of every method."""
    if not comparison.runs:
        return None
    metric = numbers.metric_of(comparison)
    names = comparison.methods
    values = [numbers.scores(comparison, name, metric) for name in names]
    title = numbers.titled(metric)

    def draw(figure: object) -> None:
        axis = figure.subplots()  # type: ignore[attr-defined]
        series = {"all modalities": values}
        marks.dots(
            axis, names, series, numbers.tick(metric), title, comparison.winner
        )

    over = numbers.over(comparison)
    explained = (
        f"The number after ± is the standard deviation over {over}; in the "
        "figure, a line spans one deviation each way and small strokes are "
        f"{over}. "
        if max(len(found) for found in values) > 1
        else "Each method has one run, so nothing is known about the spread "
        "over seeds. "
    )
    if over == "folds":
        explained += (
            "The value of a fold is the mean over its seeds, which have the "
            "same test samples. "
        )
    spreads = ", ".join(
        f"{name} {numbers.spread(found, metric.text)}"
        for name, found in zip(names, values, strict=True)
    )
    return [
        Figure(
            "methods",
            draw,
            f"{title} of each method on test data: {spreads}.",
            f"{title} on test data",
            (380, marks.height(len(names))),
        ),
        table(comparison),
        Text(
            f"Bold: {comparison.winner}, chosen by "
            f"{numbers.in_sentence(metric)} on validation data, not on "
            f"test data. {_of_last_row(comparison)}{explained}"
            "↓ marks metrics of which less is better.",
            "note",
        ),
    ]


def _of_last_row(comparison: Comparison) -> str:
    if numbers.best_alone(comparison) is None:
        return ""
    return (
        "The last row is what the best single modality on validation data "
        "reaches. "
    )


def table(comparison: Comparison) -> Table:
    """Returns the table of methods."""
    found = numbers.all_metrics(comparison)

    def row(title: str, method: str, key: str | None = None) -> list:
        cells = [
            numbers.spread(
                numbers.scores(comparison, method, metric, key), metric.text
            )
            for metric in found
        ]
        return [title, *cells, len(comparison.runs_of(method))]

    rows = [row(name, name) for name in comparison.methods]
    best = numbers.best_alone(comparison)
    if best is not None:
        method, name = best
        rows.append(row(f"{name} alone, of {method}", method, name))
    header = [
        numbers.titled(metric) + ("" if metric.higher_is_better else " ↓")
        for metric in found
    ]
    marked = [
        index
        for index, name in enumerate(comparison.methods)
        if name == comparison.winner
    ]
    runs = "Runs"
    if numbers.over(comparison) == "folds":
        runs += " (± over folds)"
    return Table(["Method", *header, runs], rows, marked=marked)
