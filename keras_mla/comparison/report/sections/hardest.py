"""Samples that no modality gets right."""

import numpy as np

from keras_mla.comparison.report import numbers
from keras_mla.comparison.report.blocks import Block, Table, Text
from keras_mla.comparison.report.registry import section
from keras_mla.comparison.results import Comparison

MOST = 50


@section("Samples that no modality gets right")
def hardest(comparison: Comparison) -> list[Block] | None:
    """Lists samples that the winner gets wrong in every way."""
    found = said(comparison)
    if found is None:
        return None
    y = np.asarray(comparison.y).reshape(-1).astype(int)
    rows = never_right(comparison, found)
    share = 100 * len(rows) / max(len(y), 1)
    text = (
        f"{comparison.winner} predicts a wrong class for {len(rows)} of "
        f"{numbers.counted(len(y), 'test sample')} "
        f"({share:.1f}{numbers.PERCENT}) from each modality alone and from "
        "all, with every seed."
    )
    if not len(rows):
        text = (
            f"{comparison.winner} gets each test sample right from some "
            "modality, or from all, with some seed."
        )
        return [Text(text)]
    if len(rows) > MOST:
        text += f" The first {MOST} are listed."
    text += (
        " Check whether their labels are right. "
        "A dash stands for a modality that the sample lacks; with several "
        "seeds, the most frequent prediction is shown."
    )
    place = {name: i for i, name in enumerate(comparison.modalities)}
    presence = np.asarray(comparison.presence, bool)

    def cell(row: int, name: str) -> str:
        if name in place and not presence[row, place[name]]:
            return "–"
        most = int(np.bincount(found[name][:, row]).argmax())
        return numbers.class_name(comparison, most)

    table = [
        [
            comparison.ids[row],
            numbers.class_name(comparison, int(y[row])),
            *(cell(row, name) for name in found),
        ]
        for row in rows[:MOST]
    ]
    columns = [
        "Sample",
        "True",
        *("all" if name == comparison.everything else name for name in found),
    ]
    return [
        Text(text),
        Table(columns, table, words=range(len(columns))),
    ]


def said(comparison: Comparison) -> dict[str, np.ndarray] | None:
    """Returns the classes `(seeds, samples)` that the winner predicts.

    The keys are each modality, and all of them. Returns `None` if they are not
    all stored, or the task has no classes.
    """
    if comparison.task != "single_label" or len(comparison.modalities) < 2:
        return None
    found = {
        key: comparison.outputs_of(comparison.winner, key)
        for key in (*comparison.modalities, comparison.everything)
    }
    if not all(found.values()):
        return None
    return {
        key: np.stack([numbers.predicted(one) for one in outputs])
        for key, outputs in found.items()
    }


def never_right(
    comparison: Comparison, found: dict[str, np.ndarray]
) -> np.ndarray:
    """Returns the samples that no modality and no seed gets right."""
    y = np.asarray(comparison.y).reshape(-1).astype(int)
    presence = np.asarray(comparison.presence, bool)
    right = (found[comparison.everything] == y).any(axis=0)
    for index, name in enumerate(comparison.modalities):
        # A prediction without the modality is a guess, whose luck is no merit.
        right |= (found[name] == y).any(axis=0) & presence[:, index]
    return np.flatnonzero(~right)
