"""Makes tables and a figure of the finished runs."""

import csv
import pathlib
from collections.abc import Sequence

import numpy as np

from comparison.methods import ABLATION

MEASURES = ("accuracy", "nll", "ece")


def write(
    directory: pathlib.Path, modalities: tuple[str, ...], finals: list[dict]
) -> str:
    """Writes `table.csv`, `table.md` and `figure.png`; returns the Markdown."""
    summary = summarize(finals)
    write_csv(directory / "table.csv", summary)
    text = markdown(modalities, summary)
    (directory / "table.md").write_text(text)
    figure(directory / "figure.png", (*modalities, "all"), summary)
    return text


def summarize(finals: list[dict]) -> dict[str, dict]:
    """Returns mean and deviation over seeds of each method, part and measure.

    The result is `{method: {part: {measure: (mean, deviation)}}}`, with the
    deviation of a sample, 0 for a single seed.
    """
    by_method: dict[str, list[dict]] = {}
    for record in finals:
        method = record["run"]["method"]
        by_method.setdefault(method, []).append(record["test"])
    summary: dict[str, dict] = {}
    for method, tests in by_method.items():
        summary[method] = {
            part: {
                measure: mean_and_deviation(
                    [test[part][measure] for test in tests]
                )
                for measure in MEASURES
            }
            for part in tests[0]
        }
        summary[method]["seeds"] = len(tests)
    return summary


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Returns mean and sample deviation, 0 for a single value."""
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return float(np.mean(values)), float(deviation)


def markdown(modalities: tuple[str, ...], summary: dict[str, dict]) -> str:
    """Returns tables of test accuracy, of the ablation and of calibration."""
    tables = []
    for title, rows in (
        ("Test accuracy in %", [m for m in summary if m not in ABLATION]),
        (
            "Ablation: test accuracy in %",
            [m for m in summary if m in ABLATION or m == "MLA"],
        ),
    ):
        if not rows or rows == ["MLA"] and title.startswith("Ablation"):
            continue
        lines = [
            f"| {title} | {' | '.join(modalities)} | all | all, calibrated |",
            "|" + " --- |" * (len(modalities) + 3),
        ]
        for method in rows:
            cells = [
                cell(summary[method].get(part), "accuracy", 100, 1)
                for part in (*modalities, "all", "calibrated")
            ]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    lines = [
        "| Calibration of the fused prediction | NLL | ECE in % | "
        "NLL, calibrated | ECE in %, calibrated |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method, parts in summary.items():
        cells = [
            cell(parts.get(part), measure, factor, digits)
            for part in ("all", "calibrated")
            for measure, factor, digits in (("nll", 1, 3), ("ece", 100, 1))
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    tables.append("\n".join(lines))
    seeds = {parts["seeds"] for parts in summary.values()}
    count = " or ".join(str(n) for n in sorted(seeds))
    return "\n\n".join(tables) + f"\n\nMean ± deviation over {count} seeds.\n"


def cell(part: dict | None, measure: str, factor: float, digits: int) -> str:
    """Returns a table's cell: mean and deviation, or a dash."""
    if part is None:
        return "–"
    mean, deviation = (factor * value for value in part[measure])
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def write_csv(path: pathlib.Path, summary: dict[str, dict]) -> None:
    """Writes a line for each method, part and measure."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["method", "part", "measure", "mean", "deviation", "seeds"]
        )
        for method, parts in summary.items():
            for part, measures in parts.items():
                if part == "seeds":
                    continue
                for measure, (mean, deviation) in measures.items():
                    writer.writerow(
                        [method, part, measure, mean, deviation, parts["seeds"]]
                    )


def figure(
    path: pathlib.Path, parts: Sequence[str], summary: dict[str, dict]
) -> None:
    """Draws the accuracy of each part as bars, method by method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    picture, axes = pyplot.subplots(
        figsize=(1.5 + 0.9 * len(summary), 4), layout="constrained"
    )
    width = 0.8 / len(parts)
    for index, part in enumerate(parts):
        means, deviations = np.array(
            [summary[method][part]["accuracy"] for method in summary]
        ).T
        axes.bar(
            np.arange(len(summary)) + (index - (len(parts) - 1) / 2) * width,
            100 * means,
            width,
            yerr=100 * deviations,
            label=part,
        )
    axes.set_xticks(range(len(summary)), list(summary), rotation=45, ha="right")
    axes.set_ylabel("Test accuracy in %")
    axes.legend(ncols=len(parts), loc="lower left")
    picture.savefig(path, dpi=120)
    pyplot.close(picture)
