"""Which method and which fusion to try first, from finished comparisons.

Each folder is what `keras-mla compare` has written about one data set:

    python experiments/recommend.py \
        --runs=mosi=runs/mosi,views=runs/views,mvsa=runs/mvsa

A recipe is a method with its own fusion, with temperatures fitted to it, or
with joint calibration; what is fitted is scored on validation samples that it
was not fitted to. How far a
recipe is below the best recipe of a data set, in points of accuracy on
validation data, is its regret there. For each data set, the recipe with the
smallest mean regret on all *other* data sets is chosen, and shown with its
test accuracy. Test data choose nothing.

Prints Markdown: test accuracies of all recipes, and the recipes chosen.
"""

import csv
import pathlib
import sys
from collections.abc import Mapping

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("runs", [], "Pairs NAME=FOLDER, at least two.")
flags.DEFINE_string("metric", "accuracy", "Metric; more must be better.")

# What stands in `table.csv` for each fusion: on validation and on test data.
PARTS = {
    "": ("validation", "all"),
    ", calibrated": ("validation, calibrated", "calibrated"),
    ", joint": ("validation, joint", "pooled"),
}
# A method and the ending for its fusion.
Recipe = tuple[str, str]


def read(folder: str, metric: str) -> dict[str, dict[Recipe, tuple]]:
    """Returns means and deviations of recipes, on validation and test data.

    Raises:
        ValueError: If the folder has no `table.csv` with the metric.
    """
    path = pathlib.Path(folder) / "table.csv"
    if not path.exists():
        raise ValueError(f"There is no {path}: run `keras-mla compare` first.")
    with path.open(encoding="utf-8", errors="backslashreplace") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == metric]
    found: dict[str, dict[Recipe, tuple]] = {"validation": {}, "test": {}}
    for row in rows:
        for fusion, parts in PARTS.items():
            for split, part in zip(found, parts, strict=True):
                if row["part"] == part:
                    spread = float(row["deviation"] or "nan")
                    recipe = row["method"], fusion
                    found[split][recipe] = float(row["mean"]), spread
    if not found["validation"]:
        raise ValueError(f"{path} has no validation scores of {metric!r}.")
    return found


def regrets(scores: Mapping[Recipe, tuple]) -> dict[Recipe, float]:
    """Returns how far each recipe is below the best, in points."""
    best = max(mean for mean, _ in scores.values())
    return {r: 100 * (best - mean) for r, (mean, _) in scores.items()}


def mean_regrets(
    data: Mapping[str, Mapping[str, dict]], split: str = "validation"
) -> dict[Recipe, float]:
    """Returns mean regrets of the recipes that every data set has."""
    found = [regrets(scores[split]) for scores in data.values()]
    shared = [r for r in found[0] if all(r in other for other in found)]
    return {r: float(np.mean([f[r] for f in found])) for r in shared}


def left_out(
    data: Mapping[str, Mapping[str, dict]],
) -> dict[str, tuple[Recipe, float, float]]:
    """Returns, for each data set, what the others choose.

    Returns:
        dict of data set to the recipe, its test score, and its regret among
        test scores.
    """
    result = {}
    for name, scores in data.items():
        others = {n: s for n, s in data.items() if n != name}
        known = {
            r: regret
            for r, regret in mean_regrets(others).items()
            if r in scores["test"]
        }
        recipe = min(known, key=lambda r: known[r])
        score = scores["test"][recipe][0]
        result[name] = recipe, score, regrets(scores["test"])[recipe]
    return result


def markdown(data: Mapping[str, Mapping[str, dict]], metric: str) -> str:
    """Returns the tables."""
    recipes = dict.fromkeys(r for s in data.values() for r in s["test"])
    regret = mean_regrets(data)
    heads = [*data, "mean regret on validation"]
    lines = [
        f"Test {metric} in %",
        "",
        f"| Recipe | {' | '.join(heads)} |",
        f"| :-- |{' --: |' * len(heads)}",
    ]
    for recipe in sorted(recipes, key=lambda r: regret.get(r, np.inf)):
        cells = []
        for scores in data.values():
            mean, spread = scores["test"].get(recipe, (np.nan, np.nan))
            known = "–" if np.isnan(mean) else f"{100 * mean:.1f}"
            cells.append(
                known if np.isnan(spread) else f"{known} ± {100 * spread:.1f}"
            )
        cells.append(f"{regret[recipe]:.2f}" if recipe in regret else "–")
        lines.append(f"| {''.join(recipe)} | {' | '.join(cells)} |")
    lines += [
        "",
        "| Left out | Chosen by the others | Test | below the best |",
        "| :-- | :-- | --: | --: |",
    ]
    for name, (recipe, score, below) in left_out(data).items():
        lines.append(
            f"| {name} | {''.join(recipe)} | {100 * score:.1f} | {below:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main(_: list[str]) -> None:
    """Reads the folders and prints the tables."""
    pairs = [run.partition("=") for run in FLAGS.runs]
    if len(pairs) < 2 or not all(name and folder for name, _, folder in pairs):
        sys.exit("--runs takes at least two pairs NAME=FOLDER.")
    try:
        data = {n: read(folder, FLAGS.metric) for n, _, folder in pairs}
    except ValueError as error:
        sys.exit(str(error))
    print(markdown(data, FLAGS.metric), end="")


if __name__ == "__main__":
    app.run(main)
