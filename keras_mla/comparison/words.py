"""Says in words what has become of runs."""

import re
import textwrap
from collections.abc import Mapping, Sequence

from keras_mla.comparison.log import Log
from keras_mla.comparison.ranking import Tried

# How a final run can be lost.
LOST = {
    "diverged": "training diverged",
    "failed": "training failed",
    "unseen": "predicting the test split failed",
}


def notes(
    lost: Mapping[str, Sequence[tuple[str, dict]]],
    methods: Sequence[str],
    seeds: int,
    folds: int,
) -> list[str]:
    """Returns a sentence for each way in which a method lacks final runs.

    Args:
        lost: dict of method to the runs it lacks, each with a key of `LOST`.
        methods: Titles of the methods to tell of.
        seeds: int. Number of seeds.
        folds: int. Number of folds.
    """
    found = []
    for method in methods:
        for how, text in LOST.items():
            runs = [what for kind, what in lost.get(method, ()) if kind == how]
            if runs:
                count = len({what["seed"] for what in runs})
                note = f"{method}: {text} with {count} of {seeds} seeds"
                if folds > 1:
                    at = sorted({what["fold"] for what in runs})
                    note += f" (fold {', '.join(map(str, at))})"
                found.append(note)
    return found


def settings(
    tried: Mapping[tuple[str, int], Sequence[Tried]], methods: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Returns facts: settings that were tried, and settings that diverged.

    Args:
        tried: dict of method and fold to the settings that were tried.
        methods: Titles of the methods to tell of.

    Returns:
        dict of a title to a dict of method to a number. The first title is
        left out if all methods tried the same number of settings.
    """
    counts, diverged = {}, {}
    for method in methods:
        found = [those for (m, _), those in tried.items() if m == method]
        numbers = [len(those) for those in found]
        least, most = min(numbers), max(numbers)
        counts[method] = f"{least}" if least == most else f"{least} to {most}"
        bad = {
            Log.key(one.setting)
            for those in found
            for one in those
            if one.diverged
        }
        if bad:
            diverged[method] = f"{len(bad)} of {most}"
    facts = {}
    if len(set(counts.values())) > 1:
        facts["settings tried"] = counts
    if diverged:
        facts["settings that diverged with some seed"] = diverged
    return facts


def of_error(error: Exception) -> str:
    """Returns an error in one line, without the colours of a terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", f"{type(error).__name__}: {error}")
    return textwrap.shorten(text, 500)


def of_errors(errors: Mapping[str, str]) -> str:
    """Returns the errors of methods in one line."""
    return "; ".join(f"{method}: {error}" for method, error in errors.items())


def of_setting(setting: dict) -> str:
    """Returns a setting in a few words: `"learning_rate 0.001"`."""
    told = {
        key: f"{value:g}" if isinstance(value, int | float) else str(value)
        for key, value in setting.items()
    }
    return ", ".join(f"{key} {value}" for key, value in told.items())
