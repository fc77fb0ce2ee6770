"""Tables in the paper's form, from what comparisons have found."""

import csv
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from keras_mla.comparison import Comparison
from keras_mla.comparison.metrics import METRICS

# dict of method to dict of column to a number for each seed.
Values = Mapping[str, Mapping[str, Sequence[float]]]


def accuracies(comparison: Comparison) -> dict[str, dict[str, list[float]]]:
    """Returns the test accuracies of each modality and of all together."""
    measure = METRICS["single_label"]["accuracy"]
    keys = {name: name for name in comparison.modalities}
    keys["all"] = comparison.everything
    return {
        method: {
            part: comparison.scores(method, measure, key)
            for part, key in keys.items()
        }
        for method in comparison.methods
    }


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Returns mean and sample deviation, 0 for a single value."""
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return float(np.mean(values)), float(deviation)


def markdown(title: str, values: Values, transposed: bool = False) -> str:
    """Returns a table of means and deviations in percent.

    Args:
        title: The first cell.
        values: The numbers.
        transposed: bool. Whether methods are columns, as in the paper's
            Table 1.
    """
    columns = list(dict.fromkeys(c for parts in values.values() for c in parts))
    rows = [[title, *columns]]
    for method, parts in values.items():
        rows.append([method, *(_cell(parts.get(c, ())) for c in columns)])
    if transposed:
        rows = [list(row) for row in zip(*rows, strict=True)]
    rows.insert(1, ["---"] * len(rows[0]))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean, deviation = (100 * v for v in mean_and_deviation(values))
    return f"{mean:.1f} ± {deviation:.1f}"


def write_csv(path: pathlib.Path, values: Values) -> None:
    """Writes a line for each method and column, not rounded."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["method", "part", "measure", "mean", "deviation", "seeds"]
        )
        for method, parts in values.items():
            for part, found in parts.items():
                pair = mean_and_deviation(found)
                writer.writerow([method, part, "accuracy", *pair, len(found)])


def show(path: pathlib.Path, text: str, values: Values) -> None:
    """Writes a table, and prints it."""
    path.write_text(text, encoding="utf-8")
    counts = {len(v) for parts in values.values() for v in parts.values()}
    seeds = " or ".join(map(str, sorted(counts)))
    print(f"\n{text}\nTest accuracy in %, mean ± deviation over {seeds} seeds.")


def tell(comparison: Comparison) -> None:
    """Prints what failed, and what a time budget left out."""
    for method, error in comparison.failures.items():
        print(f"{method} failed: {error}")
    for note in comparison.notes:
        print(f"{note}.")
    for run in comparison.missing:
        print(f"No time for {run}")
