"""Ranks settings and methods by their runs on validation data.

A record is what `Log` holds of a run. Each function returns a tuple that is
larger for what is better.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_mla.comparison.metrics import Metric


@dataclasses.dataclass
class Tried:
    """A setting of a method, as its trial seeds have found it.

    Attributes:
        setting: dict.
        records: list of the records that have scores.
        diverged: int. Number of runs that diverged.
    """

    setting: dict
    records: list[dict]
    diverged: int = 0


def of_records(metric: Metric, records: Sequence[dict]) -> tuple[float, ...]:
    """Ranks by the mean score; of equal means, by the log loss."""
    found = [record["validation"] for record in records]
    sign = 1 if metric.higher_is_better else -1
    score = sign * float(np.mean([v[metric.name] for v in found]))
    tie = -float(np.mean([v.get("log_loss", 0.0) for v in found]))
    lowest = -float("inf")
    return tuple(lowest if np.isnan(v) else v for v in (score, tie))


def best_of(metric: Metric, tried: Sequence[Tried]) -> Tried | None:
    """Returns the best setting; `None` if all runs of all settings diverged.

    The seeds that are left of a setting may be its lucky ones. A setting that
    diverged with a seed is therefore below all settings that did not.
    """

    def rank(one: Tried) -> tuple[float, ...]:
        return -one.diverged, *of_records(metric, one.records)

    return max((t for t in tried if t.records), key=rank, default=None)


def of_method(
    metric: Metric, records: Sequence[dict], folds: int, lost: int
) -> tuple[float, ...]:
    """Ranks a method by the seeds that have runs on all folds.

    Args:
        metric: What ranks.
        records: Records of the method's final runs, at least one.
        folds: int. Number of folds.
        lost: int. Number of final runs that diverged or failed. A method
            without such runs is above all methods with some.
    """
    by_seed: dict[int, list[dict]] = {}
    for record in records:
        by_seed.setdefault(record["run"]["seed"], []).append(record)
    whole = [
        r for found in by_seed.values() if len(found) == folds for r in found
    ]
    return bool(whole), -lost, *of_records(metric, whole or records)
