"""Makes the table and the figure of `projection_study.py`."""

import pathlib
from collections import defaultdict

import numpy as np

WHEN = ("early", "late")


def write(directory: pathlib.Path, results: dict[str, list[dict]]) -> str:
    """Writes `table.md` and `figure.png`; returns the table."""
    chosen = {name: choose(records) for name, records in results.items()}
    text = markdown(chosen)
    (directory / "table.md").write_text(text)
    _figure(directory / "figure.png", chosen)
    return text


def choose(records: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """Chooses results by factor and projector, at the best learning rate.

    The best has the highest mean validation accuracy over seeds.

    Returns:
        dict of lists of results, one for each seed in order.
    """
    chosen = {}
    for record in records:
        what = record["run"]
        by_rate: dict = defaultdict(list)
        for index, (seed, rate) in enumerate(what["starts"]):
            one = {
                key: {k: v[index] for k, v in values.items()}
                if key in WHEN
                else values[index]
                for key, values in record.items()
                if key != "run"
            }
            by_rate[rate].append({**one, "seed": seed})
        best = max(by_rate.values(), key=lambda rows: _mean(rows, "validation"))
        best.sort(key=lambda row: row["seed"])
        chosen[what["factor"], what["projector"]] = best
    return chosen


def difference(runs: list[dict], others: list[dict]) -> tuple[float, float]:
    """Returns mean and standard error of paired differences, in points."""
    paired = [
        100 * (a["test"] - b["test"]) for a, b in zip(runs, others, strict=True)
    ]
    error = np.std(paired, ddof=1) / len(paired) ** 0.5 if paired[1:] else 0.0
    return float(np.mean(paired)), float(error)


def markdown(chosen: dict[str, dict]) -> str:
    """Returns tables of accuracy, of differences and of interference."""
    names = list(chosen)
    rows = [
        f"| Factor | projection | {' | '.join(names)} |",
        "|" + " --- |" * (len(names) + 2),
    ]
    for key in dict.fromkeys(k for runs in chosen.values() for k in runs):
        factor, projector = key
        cells = []
        for name in names:
            runs = chosen[name][key]
            if projector == "none":
                cells.append(f"{100 * _mean(runs, 'test'):.1f}")
                continue
            mean, error = difference(runs, chosen[name][factor, "none"])
            cells.append(f"{mean:+.1f} ± {error:.1f}")
        rows.append(f"| {factor} | {projector} | {' | '.join(cells)} |")
    text = "\n".join(rows) + "\n"
    rows = [
        "| Effect on others / on itself, early, late | projection | "
        + " | ".join(
            f"{n}, {what}" for n in names for what in ("logits", "loss")
        )
        + " |",
        "|" + " --- |" * (2 * len(names) + 2),
    ]
    for key, first in chosen[names[0]].items():
        if WHEN[0] not in first[0]:
            continue
        cells = [
            ", ".join(f"{_mean(chosen[n][key], w, what):.2f}" for w in WHEN)
            for n in names
            for what in ("logits", "loss")
        ]
        rows.append(f"| {key[0]} | {key[1]} | {' | '.join(cells)} |")
    return text + "\n" + "\n".join(rows) + "\n"


def _mean(runs: list[dict], measure: str, part: str | None = None) -> float:
    values = [record[measure] for record in runs]
    return float(np.mean([v[part] for v in values] if part else values))


def _figure(path: pathlib.Path, chosen: dict[str, dict]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    factors = list(
        dict.fromkeys(f for runs in chosen.values() for f, _ in runs)
    )
    figure, axes = pyplot.subplots(
        1,
        2,
        figsize=(10, max(3, 0.6 + 0.35 * len(factors))),
        layout="constrained",
    )
    lines = len(chosen) * 2
    for index, (name, runs) in enumerate(chosen.items()):
        for second, alpha in enumerate(("alpha 1", "alpha 100")):
            points = [
                difference(runs[factor, alpha], runs[factor, "none"])
                for factor in factors
            ]
            shift = (2 * index + second - (lines - 1) / 2) / (lines + 1)
            axes[0].errorbar(
                [mean for mean, _ in points],
                np.arange(len(factors)) + shift,
                xerr=[error for _, error in points],
                fmt="os"[second],
                color=f"C{index}",
                markersize=4,
                markerfacecolor=None if second else "white",
                label=f"{name}, {alpha}",
            )
        kept = [k for k, v in runs.items() if WHEN[0] in v[0]]
        measured = [k for k in kept if k[0] == kept[0][0]] if kept else []
        axes[1].plot(
            [projector for _, projector in measured],
            [_mean(runs[key], WHEN[0], "logits") for key in measured],
            "o",
            color=f"C{index}",
            label=name,
        )
    axes[0].axvline(0, color="0.6", linewidth=0.8)
    axes[0].set_yticks(range(len(factors)), factors)
    axes[0].invert_yaxis()
    axes[0].set_xlabel("Test accuracy with projection − without, points")
    axes[0].legend(fontsize=7)
    axes[1].tick_params(axis="x", labelrotation=60)
    axes[1].set_ylabel("Change of others' logits / own, early")
    axes[1].set_ylim(0)
    axes[1].legend(fontsize=7)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
