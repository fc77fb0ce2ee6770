"""Data of a comparison, of which values are hidden."""

import dataclasses

import numpy as np

from keras_mla.comparison.data import Data, Part
from keras_mla.core.arrays import full_presence
from keras_mla.datasets.protocols import missing

DRAWS = ("keep_one", "independent")


def at_rate(data: Data, rate: float, draw: str, seed: int) -> Data:
    """Returns data of which values are hidden at random.

    Args:
        data: The data, in memory.
        rate: float. The share of entries that is hidden.
        draw: One of `DRAWS`.
        seed: int.

    Raises:
        ValueError: If the data are batches.
    """
    names = data.modalities
    _check_memory(data)
    drawn: np.ndarray = np.ones((len(data.ids), len(names)), bool)
    # Each split has the rate; with folds, all data have it.
    groups = [part.rows for part in data.folds[0].parts.values()]
    if len(data.folds) > 1:
        groups = [np.arange(len(data.ids))]
    for index, rows in enumerate(groups):
        drawn[rows] = missing.missing_presence(
            len(rows), names, rate, seed + index, draw == "keep_one"
        )
    rng = np.random.default_rng(seed)
    folds = [
        dataclasses.replace(
            fold,
            parts={
                split: _hidden(names, part, drawn, rng, draw == "keep_one")
                for split, part in fold.parts.items()
            },
        )
        for fold in data.folds
    ]
    facts = {"missing rate": rate, "draw": draw, "seed of the draw": seed}
    name = f"{data.name}, {100 * rate:g} % missing"
    return dataclasses.replace(
        data, name=name, folds=folds, facts={**data.facts, **facts}
    )


def _hidden(
    names: tuple[str, ...],
    part: Part,
    drawn: np.ndarray,
    rng: np.random.Generator,
    keep_one: bool,
) -> Part:
    """Returns a split with further modalities absent."""
    if not part.shared:
        drawn = drawn[part.rows]
    there = full_presence(names, part.source)
    presence = there & drawn
    if keep_one:
        # What a sample lacks already may be all that was left to it.
        rows = np.flatnonzero(there.any(axis=1) & ~presence.any(axis=1))
        chance = np.where(there[rows], rng.random((len(rows), len(names))), -1)
        presence[rows, chance.argmax(axis=1)] = True
    source = {**part.source, "presence": presence}
    return dataclasses.replace(part, source=source)


def without(data: Data, modality: str, share: float, seed: int) -> Data:
    """Returns data whose training samples lack a modality in a share of them.

    Validation and test stay as they are. A sample that has nothing else keeps
    the modality.

    Args:
        data: The data, in memory.
        modality: Name of the modality.
        share: float in [0, 1]. The share of training samples.
        seed: int.

    Raises:
        ValueError: If the data are batches, or lack the modality.
    """
    if modality not in data.modalities:
        raise ValueError(
            f"The modality must be one of {list(data.modalities)}. "
            f"Received: {modality!r}"
        )
    _check_memory(data)
    names, folds = data.modalities, []
    rng = np.random.default_rng(seed)
    for fold in data.folds:
        train = fold.parts["train"]
        drawn: np.ndarray = np.ones((len(data.ids), len(names)), bool)
        drawn[train.rows] = missing.pattern_presence(
            len(train.rows), names, {modality: share}, seed
        )
        part = _hidden(names, train, drawn, rng, keep_one=True)
        parts = {**fold.parts, "train": part}
        folds.append(dataclasses.replace(fold, parts=parts))
    facts = {"training without": modality, "share": share, "seed": seed}
    name = f"{data.name}, {100 * share:g} % of training without {modality}"
    return dataclasses.replace(
        data, name=name, folds=folds, facts={**data.facts, **facts}
    )


def _check_memory(data: Data) -> None:
    parts = [part for fold in data.folds for part in fold.parts.values()]
    if not all(part.in_memory for part in parts):
        raise ValueError(
            "Values can be hidden in data in memory, and these are batches. "
            "Give batches that hold `presence` to `compare`."
        )
