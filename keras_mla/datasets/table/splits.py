"""Splits of a table's rows, by a column, at random, by group, or in folds."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mla.datasets.extras import need
from keras_mla.datasets.table import cells

_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def by_column(frame: Any, column: str) -> dict[str, np.ndarray]:
    """Returns the positions of the rows of each split that a column names.

    Raises:
        ValueError: If a cell is empty, or there is no training split.
    """
    words = cells.words_of(frame[column])
    empty = words == ""
    if empty.any():
        where = cells.place(frame, int(empty.argmax()), column)
        raise ValueError(f"{where}: the cell names no split.")
    names = [_NAMES.get(str(word).lower(), str(word)) for word in words]
    parts = {
        name: np.flatnonzero(np.array(names, object) == name)
        for name in dict.fromkeys(names)
    }
    if "train" not in parts:
        raise ValueError(
            f"Column {column!r} names no training split ('train'). "
            f"Received: {list(parts)}"
        )
    order = ("train", "validation", "test")
    return dict(
        sorted(
            parts.items(),
            key=lambda part: (
                order.index(part[0]) if part[0] in order else len(order)
            ),
        )
    )


def at_random(
    count: int,
    fractions: Mapping[str, float],
    strata: np.ndarray | None,
    groups: np.ndarray | None,
    seed: int,
) -> dict[str, np.ndarray]:
    """Returns the positions of the rows of each split, drawn at random.

    Args:
        count: int. Number of rows.
        fractions: dict of split to share of rows (of groups, if there are
            any).
        strata: Array of each row's class, to be equally frequent in all
            splits; or `None`. Groups have precedence.
        groups: Array of each row's group; or `None`.
        seed: int.

    Raises:
        ValueError: If the fractions are wrong, or there are too few rows.
    """
    model_selection = need("sklearn.model_selection", "split tables")
    shares = dict(fractions)
    if (
        len(shares) < 2
        or min(shares.values()) <= 0
        or not abs(sum(shares.values()) - 1) <= 1e-6
    ):
        raise ValueError(
            "The fractions of at least two splits must be positive and sum to "
            f"1. Received: fractions={shares}"
        )
    if strata is not None:
        # Numbers are sorted faster than words.
        strata = need("pandas", "split tables").factorize(strata)[0]
    left = np.arange(count)
    rest = 1.0
    parts: dict[str, np.ndarray] = {}
    names = list(shares)
    # The first split takes what the others leave.
    for name in names[:0:-1]:
        size = shares[name] / rest
        splitter = (
            model_selection.GroupShuffleSplit
            if groups is not None
            else model_selection.StratifiedShuffleSplit
            if strata is not None
            else model_selection.ShuffleSplit
        )(1, test_size=size, random_state=seed)
        try:
            [(stay, taken)] = splitter.split(
                left,
                None if strata is None else strata[left],
                None if groups is None else groups[left],
            )
        except ValueError as error:
            raise ValueError(
                f"The {len(left)} rows cannot be split: {error} "
                "(`stratify=False` splits without looking at classes.)"
            ) from error
        parts[name] = left[taken]
        left = left[stay]
        rest -= shares[name]
    parts[names[0]] = left
    return {name: np.sort(parts[name]) for name in names}


def in_folds(
    count: int,
    folds: int,
    strata: np.ndarray | None,
    groups: np.ndarray | None,
    seed: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the positions of training and validation rows of each fold.

    Raises:
        ValueError: If there are too few rows, classes or groups.
    """
    model_selection = need("sklearn.model_selection", "split tables")
    name = (
        ("Stratified" if strata is not None else "")
        + ("Group" if groups is not None else "")
        + "KFold"
    )
    smallest = (
        count
        if strata is None
        else min(np.unique(strata, return_counts=True)[1])
    )
    if folds < 2 or (groups is None and smallest < folds):
        what = "rows" if strata is None else "rows of each class"
        raise ValueError(
            f"{folds} folds need at least 2 folds and {folds} {what}. "
            f"Received: {smallest} {what}"
        )
    splitter = getattr(model_selection, name)(
        folds, shuffle=True, random_state=seed
    )
    try:
        return list(splitter.split(np.zeros(count), strata, groups))
    except ValueError as error:
        raise ValueError(f"The rows cannot be split: {error}") from error


def check_groups(
    frame: Any, parts: Mapping[str, np.ndarray], groups: np.ndarray, column: str
) -> None:
    """Raises `ValueError` if a group is in two splits."""
    seen: dict[Any, tuple[str, int]] = {}
    for name, rows in parts.items():
        for row in rows:
            split, first = seen.setdefault(groups[row], (name, int(row)))
            if split != name:
                raise ValueError(
                    f"{cells.place(frame, int(row), column)}: the group "
                    f"{groups[row]!r} is in the split {name!r} and, with "
                    f"{cells.place(frame, first)}, in {split!r}."
                )


def check_classes(
    parts: Mapping[str, np.ndarray], classes: np.ndarray, column: str
) -> None:
    """Raises `ValueError` if a split lacks a class that another has."""
    held = {name: set(classes[rows]) for name, rows in parts.items()}
    every = set().union(*held.values())
    for name, own in held.items():
        lacking = sorted(every - own, key=str)
        if lacking:
            raise ValueError(
                f"The split {name!r} lacks {len(lacking)} of the {len(every)} "
                f"classes of the column {column!r}: "
                f"{', '.join(map(str, lacking[:10]))}"
                f"{', ...' if len(lacking) > 10 else ''}. Use another split or "
                "seed, or pass `missing_classes=True`."
            )


def check_folds(
    folds: list[tuple[np.ndarray, np.ndarray]], classes: np.ndarray
) -> None:
    """Raises `ValueError` if the training rows of a fold lack a class."""
    for number, (train, held) in enumerate(folds):
        lacking = sorted(set(classes[held]) - set(classes[train]), key=str)
        if lacking:
            raise ValueError(
                f"The training rows of fold {number} lack the classes "
                f"{', '.join(map(str, lacking[:10]))}. Use fewer folds or "
                "another seed, or drop the rows of rare classes."
            )
