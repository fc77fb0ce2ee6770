"""The paper's Figure 2: what a modality learns if another one is missing.

A share of one modality's training samples is taken away; all test samples are
complete. Each panel shows the test accuracy of every modality alone over that
share, for each method:

    python experiments/modality_isolation.py --out=out/isolation

trains on handwritten digits, whose upper and lower halves are the modalities,
without a download. `--data` takes what `keras-mla compare` takes, with its
flags for columns, encoders and splits, and `--methods`, `--seeds`, `--epochs`
and others choose as they do there.
"""

import csv
import pathlib
import sys
from typing import Any

import numpy as np
from absl import flags

from keras_mla.comparison import (
    Comparison,
    command,
    compare,
    metrics,
    statistics,
)
from keras_mla.comparison.hiding import without
from keras_mla.comparison.rates import loaded
from keras_mla.comparison.report import numbers

METHODS = ("MLA", "QMF", "Late fusion", "Concat")
# dict of the modality that is taken away, share, method and modality that is
# measured, to a value for each seed.
Found = dict[tuple[str, float, str, str], list[float]]


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags."""
    command.define_data_flags(values)
    shares = ["0", "0.2", "0.4", "0.6", "0.8"]
    flags.DEFINE_list(
        "shares", shares, "Shares to take away.", flag_values=values
    )
    defaults = {"methods": list(METHODS), "trials": 1, "out": "out/isolation"}
    command.define_flags(values, **defaults)


def shares_of(values: flags.FlagValues) -> list[float]:
    """Returns the shares.

    Raises:
        ValueError: If one is no number between 0 and 1.
    """
    try:
        found = [float(share) for share in values["shares"].value]
    except ValueError:
        found = [-1.0]
    if not all(0 <= share < 1 for share in found):
        raise command.UsageError(
            "--shares takes numbers of at least 0 and less than 1. "
            f"Received: {','.join(values['shares'].value)}"
        )
    return found


def measured(result: Comparison, hidden: str, share: float) -> Found:
    """Returns the metric of each modality alone, for each method and run."""
    metric = metrics.named(result.task, result.metric)
    return {
        (hidden, share, method, name): result.scores(method, metric, name)
        for method in result.methods
        for name in result.modalities
    }


def save(path: pathlib.Path, found: Found) -> None:
    """Writes all values to a CSV."""
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(
            ["taken_away", "share", "method", "modality", "run", "value"]
        )
        for key, values in found.items():
            for run, value in enumerate(values):
                lines.writerow([*key, run, repr(value)])


def draw(path: pathlib.Path, found: Found, title: str) -> None:
    """Draws a row of panels for each modality that is taken away."""
    from matplotlib.figure import Figure

    hidden = list(dict.fromkeys(key[0] for key in found))
    methods = list(dict.fromkeys(key[2] for key in found))
    size = (2.6 * len(methods), 2.6 * len(hidden) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(
        len(hidden), len(methods), sharex=True, sharey=True, squeeze=False
    )
    for row, taken in zip(panels, hidden, strict=True):
        for panel, method in zip(row, methods, strict=True):
            names = [k[3] for k in found if (k[0], k[2]) == (taken, method)]
            for name in dict.fromkeys(names):
                points = {
                    key[1]: values
                    for key, values in found.items()
                    if (key[0], key[2], key[3]) == (taken, method, name)
                }
                percent = [100 * share for share in points]
                means = [np.mean(values) for values in points.values()]
                spread = [
                    statistics.interval(values).deviation or 0.0
                    for values in points.values()
                ]
                panel.errorbar(
                    percent, means, spread, capsize=2, marker="o", label=name
                )
            panel.set_title(method)
        row[0].set_ylabel(f"{title}, alone")
        for panel in row:
            panel.set_xlabel(f"training without {taken} (%)")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=4, frameon=False
    )
    figure.savefig(path)


def table(found: Found, metric: Any) -> str:
    """Returns means and deviations in Markdown, a row for each curve."""
    shares = list(dict.fromkeys(key[1] for key in found))
    heads = [f"{100 * share:g} %" for share in shares]
    heads = ["Taken away", "Method", numbers.titled(metric), *heads]
    lines = [
        f"| {' | '.join(heads)} |",
        f"|{' :-- |' * 3}{' --: |' * len(shares)}",
    ]
    for curve in dict.fromkeys((k[0], k[2], k[3]) for k in found):
        hidden, method, name = curve
        cells = []
        for share in shares:
            values = found.get((hidden, share, method, name))
            cells.append(
                statistics.interval(values).text(metric.scale, metric.digits)
                if values
                else "–"
            )
        lines.append(f"| {' | '.join([*curve, *cells])} |")
    return "\n".join(lines) + "\n"


def run(arguments: list[str]) -> None:
    """Trains with each share of each modality taken away."""
    values = flags.FlagValues()
    define_flags(values)
    left = command.parse(values, "modality_isolation.py", arguments)
    if left:
        raise command.UsageError(f"{left[0]!r} is no flag.")
    shares = shares_of(values)
    options: dict[str, Any] = {
        **command.data_arguments(values),
        **command.arguments(values),
    }
    out = pathlib.Path(options.pop("out")).expanduser()
    data, options = loaded(options.pop("data"), out, options)

    def trained(name: str, lacking: Any) -> Comparison:
        result = compare(lacking, out=out / name, **options)
        for method, error in result.failures.items():
            print(f"{name}: {method} failed: {error}")
        return result

    complete = trained("complete", data)  # The same for all modalities.
    found: Found = {}
    for hidden in data.modalities:
        for share in shares:
            result = complete
            if share:
                lacking = without(data, hidden, share, seed=0)
                result = trained(f"{hidden}-{share:g}", lacking)
            found |= measured(result, hidden, share)
    metric = metrics.named(data.task, complete.metric)
    save(out / "isolation.csv", found)
    (out / "isolation.md").write_text(table(found, metric))
    draw(out / "isolation.svg", found, metric.title)
    print(f"\n{table(found, metric)}\nFigure: {out / 'isolation.svg'}")


def main(arguments: list[str]) -> int:
    """Runs the script; returns the exit status."""
    return command.status("modality_isolation.py", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
