"""What each modality reaches alone."""

from typing import Any

from keras_mla.comparison.report import marks, numbers
from keras_mla.comparison.report.blocks import Block, Figure, Table, Text
from keras_mla.comparison.report.registry import section
from keras_mla.comparison.results import Comparison


@section("Each modality alone")
def alone(comparison: Comparison) -> list[Block] | None:
    """Compares predictions from single modalities."""
    metric = numbers.metric_of(comparison)
    modalities = comparison.modalities
    scores = {
        method: {
            name: numbers.scores(comparison, method, metric, name)
            for name in modalities
        }
        for method in comparison.methods
    }
    scores = {m: found for m, found in scores.items() if any(found.values())}
    if not scores or len(modalities) < 2:
        return None
    title = numbers.titled(metric)
    series: dict[str, list[list[float]]] = {
        name: [found[name] for found in scores.values()] for name in modalities
    }
    series["all"] = [numbers.scores(comparison, m, metric) for m in scores]

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        marks.dots(
            axis,
            list(scores),
            series,
            numbers.tick(metric),
            title,
            comparison.winner,
        )

    names = list(scores)
    rows = [
        [
            method,
            *(
                numbers.spread(found[index], metric.text)
                for found in series.values()
            ),
        ]
        for index, method in enumerate(names)
    ]
    return [
        Figure(
            "alone",
            draw,
            f"{title} of each method from each modality alone and from all; "
            "the table has the numbers.",
            f"{title} from single modalities",
            (380, marks.height(len(names), list(series))),
        ),
        Table(
            ["Method", *modalities, "all"],
            rows,
            marked=[names.index(comparison.winner)]
            if comparison.winner in names
            else [],
        ),
        Text(
            "The other modalities are hidden at prediction. A method that "
            "never trained with hidden modalities may do badly here although "
            "its modality is informative.",
            "note",
        ),
    ]
