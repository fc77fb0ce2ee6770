"""What failed, what is missing, settings and facts."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_mla.comparison.report.blocks import Block, Table, Text
from keras_mla.comparison.report.registry import section
from keras_mla.comparison.results import Comparison


@section("What failed or was left out")
def left_out(comparison: Comparison) -> list[Block] | None:
    """Lists errors, and what the time budget left out."""
    blocks: list[Block] = []
    if comparison.failures:
        rows = list(comparison.failures.items())
        blocks.append(Table(["Method", "Error"], rows, words=(0, 1)))
    if comparison.notes:
        blocks += [Text(f"{note}.") for note in comparison.notes]
    if comparison.missing:
        blocks.append(
            Table(
                ["Left out for lack of time"],
                [[text] for text in comparison.missing],
            )
        )
    return blocks


@section("Settings")
def settings(comparison: Comparison) -> list[Block] | None:
    """Lists the chosen setting of each method."""
    if not comparison.runs:
        return None
    found = comparison.settings()
    names = list(dict.fromkeys(n for mine in found.values() for n in mine))
    rows = [
        [
            method,
            *(_shown(setting[n]) if n in setting else "" for n in names),
            _epochs(comparison, method),
            f"{np.mean(_seconds(comparison, method)):.3g}",
        ]
        for method, setting in found.items()
    ]
    columns = ["Method", *names, "best epochs", "seconds a run"]
    return [Table(columns, rows)]


@section("Facts")
def facts(comparison: Comparison) -> list[Block] | None:
    """Prints the facts of the comparison."""
    tables: list[Table] = []
    commands: list[Text] = []
    single: list[tuple[str, str]] = []
    for name, value in comparison.facts.items():
        if isinstance(value, Mapping):
            rows = list(_flat(value))
            if rows:
                tables.append(Table([str(name), ""], rows, words=(0, 1)))
        elif name == "command":
            # What `python -m keras_mla` leaves in `sys.argv`.
            text = re.sub(r"^\S*__main__\.py", "keras-mla", _shown(value))
            commands.append(Text(text, "code"))
        else:
            single.append((str(name), _shown(value)))
    # Short ones first, so that they fit beside each other.
    tables.sort(key=lambda table: len(table.rows))
    if single:
        tables.insert(0, Table(["Fact", ""], single, words=(0, 1)))
    return [*tables, *commands]


def _flat(
    facts: Mapping[Any, Any], before: str = ""
) -> Iterator[tuple[str, str]]:
    """Yields nested facts as lines, but for what was not given."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}, ")
        elif value is not None and value != []:
            yield f"{before}{name}", _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(_shown(one) for one in value)
    return str(value)


def _epochs(comparison: Comparison, method: str) -> str:
    """Returns the best epochs of the first run, counted from 1."""
    epochs = comparison.runs_of(method)[0].epochs
    if set(epochs) == {"all"}:
        return str(epochs["all"] + 1)
    return ", ".join(f"{name} {epoch + 1}" for name, epoch in epochs.items())


def _seconds(comparison: Comparison, method: str) -> list[float]:
    return [run.seconds for run in comparison.runs_of(method)]
