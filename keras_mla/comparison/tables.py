"""Reads the data of a comparison from a table."""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mla.comparison.data import (
    INNER,
    SHARES,
    SPLITS,
    Data,
    Division,
    Fold,
    Part,
    described,
    stacked,
)
from keras_mla.comparison.features import prints
from keras_mla.comparison.frozen import Presets
from keras_mla.datasets.readers import image
from keras_mla.datasets.table import Image, Table, guess, read_table, values
from keras_mla.presence import stack_presence

# Pictures that small encoders learn from.
_PICTURES = image.ImageSettings(size=64)
_KINDS = {"audio": "sound", "numeric": "number", "categorical": "category"}
# Files that take more, in all splits of all folds, are decoded in each epoch.
MOST_BYTES = 2 << 30
_BATCH_SIZE = 64


def from_table(
    name: str,
    source: Any,
    modalities: Any,
    label: Any,
    columns: Mapping[str, Sequence[str]],
    id: str | None,
    root: str | None,
    division: Division,
    presets: Presets,
) -> Data:
    """Reads a table, as `compare` says.

    Raises:
        ValueError: If columns, labels or splits are not as they should be.
    """
    split, group, seed = division.split, division.group, division.seed
    if isinstance(source, str | os.PathLike):
        frame = read_table(source)
    else:
        import pandas as pd

        frame = (
            source if isinstance(source, pd.DataFrame) else pd.DataFrame(source)
        )
    if not frame.index.is_unique:
        frame = frame.reset_index(drop=True)
    if label is None:
        raise ValueError(
            "Say which column holds the labels: `label=` (or --label). "
            f"Columns: {list(frame.columns)}"
        )
    left = _not_modalities(label, id, split, group)
    given, kinds = modalities_of(frame, modalities, columns, left)
    given, frozen = presets.of_columns(given, kinds, frame)

    def new() -> Table:
        return Table(given, label, id=id, kinds=kinds, root=root)

    table = new()
    if division.folds is not None:
        divided = [
            {**_inner(new(), rest, group, seed), "test": test}
            for rest, test in table.folds(
                frame, division.folds, group=group, seed=seed
            )
        ]
    elif split is not None:
        divided = [table.split(frame, column=split, group=group)]
        for missing in set(SPLITS) - set(divided[0]):
            raise ValueError(
                f"Column {split!r} names no rows for {missing!r}: a comparison "
                f"needs {list(SPLITS)}. Received: {sorted(divided[0])}"
            )
    else:
        divided = [table.split(frame, SHARES, group=group, seed=seed)]
    position = {index: i for i, index in enumerate(frame.index)}
    found = []
    for parts in divided:
        table = new().adapt(parts["train"], verbose=0)
        read = presets.of_table(table, frame, frozen)
        in_memory = _bytes(read) * len(frame) * len(divided) <= MOST_BYTES
        made = {}
        for part in SPLITS:
            rows = parts[part]
            at = np.array([position[index] for index in rows.index])
            make = _arrays if in_memory else _batches
            made[part] = make(read, rows, at, part == "train")
        found.append(Fold(made, table))
    ids = [str(i) for i in (frame.index if id is None else frame[id])]
    first = found[0].table
    assert first is not None
    data = Data(
        name,
        first.task,
        first.units,
        first.classes,
        first.modalities,
        found,
        ids,
        frozen,
        groups=None if group is None else frame[group].to_numpy(str),
    )
    return described(data, prints(frame, first))


def _bytes(table: Table) -> int:
    """Returns the bytes of a row's decoded files."""
    return sum(
        4 * int(np.prod(field.shape))
        for field in table.fields.values()
        if not field.in_memory
    )


def _arrays(table: Table, rows: Any, at: np.ndarray, training: bool) -> Part:
    x, y = table.arrays(rows)
    return Part(stacked(table.modalities, x), y, at)


def _batches(table: Table, rows: Any, at: np.ndarray, training: bool) -> Part:
    def with_those(presence: np.ndarray | None) -> Any:
        if training:
            return functools.partial(_training, table, rows, presence)
        return table.batches(rows, batch_size=_BATCH_SIZE, presence=presence)

    there = stack_presence(table.modalities, table.presence(rows))
    there = np.asarray(there, bool)
    return Part(
        with_those(None), table.labels(rows), at, there=there, hide=with_those
    )


def _training(
    table: Table, rows: Any, presence: np.ndarray | None, seed: int
) -> Any:
    """Returns training batches in the order of a run's seed."""
    return table.batches(
        rows,
        batch_size=_BATCH_SIZE,
        training=True,
        seed=seed,
        sample_ids=True,
        presence=presence,
    )


def _inner(table: Table, rest: Any, group: str | None, seed: int) -> dict:
    return table.split(rest, INNER, group=group, seed=seed)


def _not_modalities(label: Any, *others: str | None) -> set[str]:
    if isinstance(label, str):
        named = {label}
    else:
        named = set(getattr(label, "columns", label))
    return named | {name for name in others if name is not None}


def modalities_of(
    frame: Any,
    modalities: Any,
    columns: Mapping[str, Sequence[str]],
    left: set[str],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns what `Table` takes: modalities, and the kinds of columns.

    Args:
        frame: DataFrame.
        modalities: dict of modality to columns, or `None`: numbers and
            categories are one modality, `"table"`, all others their own.
        columns: dict of kind to columns. Defaults to what columns look like.
        left: Columns that are no modalities.
    """
    kinds = {
        column: _KINDS.get(kind, kind)
        for kind, names in columns.items()
        for column in names
    }
    if modalities is not None:
        return dict(modalities), kinds
    if not kinds:  # All columns, each as it looks.
        kinds = {
            str(column): guess.guess_kind(frame, column)
            for column in frame.columns
            if column not in left
        }
    given: dict[str, Any] = {}
    for column, kind in kinds.items():
        if kind in values.KINDS:
            given.setdefault("table", []).append(column)
        elif kind == "image":
            given[column] = Image(column, _PICTURES)
        else:
            given[column] = column
    made = [name for name, value in given.items() if isinstance(value, Image)]
    return given, {c: kind for c, kind in kinds.items() if c not in made}
