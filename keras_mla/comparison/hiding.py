"""Data of a comparison, of which values are hidden."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from keras_mla.comparison.data import (
    SPLITS,
    Data,
    Fold,
    Part,
    presence_of,
)
from keras_mla.datasets.protocols import missing

DRAWS = ("keep_one", "independent")


def at_rate(data: Data, rate: float, draw: str, seed: int) -> Data:
    """Returns data of which values are hidden at random, in all splits.

    Args:
        data: The data.
        rate: float. The share of entries that is hidden.
        draw: One of `DRAWS`.
        seed: int.

    Raises:
        ValueError: If nothing can be hidden in the data's batches.
    """
    _check_hideable(data)
    drawn = _drawn(data, rate, draw, seed)
    folds = _hidden_folds(data, drawn, draw, seed, SPLITS)
    facts = {"missing rate": rate, "draw": draw, "seed of the draw": seed}
    name = f"{data.name}, {pattern_key(rate)}"
    return dataclasses.replace(
        data, name=name, folds=folds, facts={**data.facts, **facts}
    )


def at_rates(data: Data, rates: Sequence[float], draw: str, seed: int) -> Data:
    """Returns data to train one model for several missing rates.

    Each rate is that of an equal share of the training samples, and of the
    validation samples, at random. The test split stays as it is; its
    `patterns` are, by `pattern_key`, what `at_rate` leaves of it.

    Args:
        data: The data.
        rates: Missing rates.
        draw: One of `DRAWS`.
        seed: int.

    Raises:
        ValueError: If nothing can be hidden in the data's batches.
    """
    _check_hideable(data)
    names, rng = data.modalities, np.random.default_rng(seed)
    drawn = _nothing_hidden(data)
    for index, rows in enumerate(_groups(data)):
        shares = np.array_split(rng.permutation(rows), len(rates))
        for share, rate in zip(shares, rates, strict=True):
            drawn[share] = missing.missing_presence(
                len(share), names, rate, seed + index, draw == "keep_one"
            )
    folds = _hidden_folds(data, drawn, draw, seed, ["train", "validation"])
    for rate in rates:
        alone = _drawn(data, rate, draw, seed)
        tests = _hidden_folds(data, alone, draw, seed, ["test"])
        for fold, hidden in zip(folds, tests, strict=True):
            presence = presence_of(data, hidden.parts["test"])
            fold.parts["test"].patterns[pattern_key(rate)] = presence
    facts = {"missing rates": list(rates), "draw": draw}
    percent = ", ".join(f"{100 * rate:g}" for rate in rates)
    return dataclasses.replace(
        data,
        name=f"{data.name}, trained at {percent} % missing",
        folds=folds,
        facts={**data.facts, **facts, "seed of the draw": seed},
    )


def pattern_key(rate: float) -> str:
    """Returns the key of `Part.patterns` for a missing rate."""
    return f"{100 * rate:g} % missing"


def without(data: Data, modality: str, share: float, seed: int) -> Data:
    """Returns data whose training samples lack a modality in a share of them.

    Validation and test stay as they are. A sample that has nothing else keeps
    the modality.

    Args:
        data: The data.
        modality: Name of the modality.
        share: float in [0, 1]. The share of training samples.
        seed: int.

    Raises:
        ValueError: If nothing can be hidden in the data's batches, or there is
            no such modality.
    """
    names = data.modalities
    if modality not in names:
        raise ValueError(
            f"The modality must be one of {list(names)}. Received: {modality!r}"
        )
    _check_hideable(data)
    folds = []
    for fold in data.folds:
        rows = fold.parts["train"].rows
        drawn = _nothing_hidden(data)
        drawn[rows] = missing.pattern_presence(
            len(rows), names, {modality: share}, seed
        )
        alone = dataclasses.replace(data, folds=[fold])
        folds += _hidden_folds(alone, drawn, "keep_one", seed, ["train"])
    facts = {"training without": modality, "share": share, "seed": seed}
    name = f"{data.name}, {100 * share:g} % of training without {modality}"
    return dataclasses.replace(
        data, name=name, folds=folds, facts={**data.facts, **facts}
    )


def _nothing_hidden(data: Data) -> np.ndarray:
    return np.full((len(data.ids), len(data.modalities)), True)


def _drawn(data: Data, rate: float, draw: str, seed: int) -> np.ndarray:
    """Returns which values of all samples stay at a rate."""
    drawn = _nothing_hidden(data)
    for index, rows in enumerate(_groups(data)):
        drawn[rows] = missing.missing_presence(
            len(rows), data.modalities, rate, seed + index, draw == "keep_one"
        )
    return drawn


def _groups(data: Data) -> Iterator[np.ndarray]:
    """Yields rows that have a rate together: a split's, or with folds all."""
    if len(data.folds) > 1:
        yield np.arange(len(data.ids))
    else:
        yield from (part.rows for part in data.folds[0].parts.values())


def _hidden_folds(
    data: Data, drawn: np.ndarray, draw: str, seed: int, splits: Sequence[str]
) -> list[Fold]:
    """Returns folds in which some splits have what was drawn alone."""
    # Drawn once, so that a sample lacks the same in all folds.
    chances = np.random.default_rng(seed).random(drawn.shape)
    return [
        dataclasses.replace(
            fold,
            parts={
                split: _hidden(
                    data, part, drawn, chances if draw == "keep_one" else None
                )
                if split in splits
                else dataclasses.replace(part, patterns={})
                for split, part in fold.parts.items()
            },
        )
        for fold in data.folds
    ]


def _hidden(
    data: Data, part: Part, drawn: np.ndarray, chances: np.ndarray | None
) -> Part:
    """Returns a split with further modalities absent."""
    # Arrays may be those of all samples.
    rows = slice(None) if part.shared else part.rows
    there = presence_of(data, dataclasses.replace(part, shared=False))
    presence = there & drawn[rows]
    if chances is not None:
        # What a sample lacks already may be all that was left to it.
        bare = np.flatnonzero(there.any(axis=1) & ~presence.any(axis=1))
        chance = np.where(there[bare], chances[rows][bare], -1)
        presence[bare, chance.argmax(axis=1)] = True
    if part.in_memory:
        source = {**part.source, "presence": presence}
        return dataclasses.replace(part, source=source)
    assert part.hide is not None
    return dataclasses.replace(part, source=part.hide(presence), there=presence)


def _check_hideable(data: Data) -> None:
    parts = [part for fold in data.folds for part in fold.parts.values()]
    if not all(part.in_memory or part.hide is not None for part in parts):
        raise ValueError(
            "Values can be hidden in arrays and in tables of files, and these "
            "are batches. Give batches that hold `presence` to `compare`."
        )
