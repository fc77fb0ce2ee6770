"""The data of a comparison: its splits or folds, labels and modalities."""

import dataclasses
import hashlib
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.core.arrays import full_presence
from keras_mla.datasets.readers import image
from keras_mla.datasets.table import (
    Image,
    Table,
    guess,
    read_table,
    splits,
    values,
)
from keras_mla.presence import stack_presence

SPLITS = ("train", "validation", "test")
# Pictures that small encoders learn from.
_PICTURES = image.ImageSettings(size=64)
# What `compare` and its command take, beside the paths of files.
COLUMNS = ("image", "audio", "video", "text", "numeric", "categorical")


@dataclasses.dataclass
class Part:
    """A split.

    Attributes:
        x: dict of arrays, with `"presence"` as a bool array
            `(samples, modalities)`; or batches of `(inputs, labels)`.
        y: Labels of all samples.
        rows: int array. Positions among all samples of the data.
    """

    x: Any
    y: np.ndarray
    rows: np.ndarray

    @property
    def in_memory(self) -> bool:
        """Whether the inputs are arrays."""
        return isinstance(self.x, dict)


@dataclasses.dataclass
class Fold:
    """The splits of one fold, or the only ones.

    Attributes:
        parts: dict of split to `Part`.
        table: The adapted `Table` that the inputs come from, or `None`.
    """

    parts: dict[str, Part]
    table: Table | None = None


@dataclasses.dataclass
class Data:
    """What a comparison compares on.

    Attributes:
        name: str.
        task: str.
        units: int. Number of outputs.
        classes: list of the names of classes or labels; `None` for numbers.
        modalities: tuple of names.
        folds: list of `Fold`.
        ids: list of str. A name for each sample.
        facts: dict of what the report should tell.
    """

    name: str
    task: str
    units: int
    classes: list[Any] | None
    modalities: tuple[str, ...]
    folds: list[Fold]
    ids: list[str]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def test(self) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
        """Returns positions, labels, names and presence of test samples.

        The positions say where a row of the data is among them; -1: nowhere.
        """
        tests = [fold.parts["test"] for fold in self.folds]
        rows = np.concatenate([part.rows for part in tests])
        order = np.argsort(rows, kind="stable")
        positions = np.full(len(self.ids), -1)
        positions[rows[order]] = np.arange(len(rows))
        y = np.concatenate([part.y for part in tests])[order]
        presence = np.concatenate([presence_of(self, p) for p in tests])[order]
        return positions, y, [self.ids[i] for i in rows[order]], presence


def batches_of(part: Part, size: int) -> Iterator[tuple[dict, np.ndarray]]:
    """Yields inputs and labels of a split, in order."""
    if not part.in_memory:
        for batch in part.x:
            yield dict(batch[0]), np.asarray(ops.convert_to_numpy(batch[1]))
        return
    for start in range(0, len(part.y), size):
        rows = slice(start, start + size)
        yield take(part.x, rows), part.y[rows]


def take(x: Any, rows: Any) -> Any:
    """Returns some rows of a structure of arrays."""
    return keras.tree.map_structure(lambda array: array[rows], x)


def presence_of(data: Data, part: Part) -> np.ndarray:
    """Returns which samples of a split have which modalities."""
    if part.in_memory:
        return full_presence(data.modalities, part.x)
    return np.concatenate(
        [
            full_presence(data.modalities, stacked(data.modalities, x))
            for x, _ in batches_of(part, 0)
        ]
    )


def stacked(modalities: Sequence[str], x: Mapping) -> dict:
    """Returns inputs with presence as one array, if they hold any."""
    x = dict(x)
    if x.get("presence") is not None:
        x["presence"] = stack_presence(modalities, x["presence"])
    return x


# === Loading ===


def load(
    source: Any,
    *,
    modalities: Any = None,
    label: Any = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    id: str | None = None,
    split: str | None = None,
    group: str | None = None,
    folds: int | None = None,
    root: str | None = None,
    seed: int = 0,
) -> Data:
    """Returns the data of a comparison, as `compare` takes them.

    Raises:
        ValueError: If the data or the arguments are not of a known form.
    """
    if isinstance(source, Data):
        return source
    options = {"split": split, "group": group, "folds": folds, "seed": seed}
    name = str(source) if isinstance(source, str | os.PathLike) else "data"
    if isinstance(source, Mapping) and set(source) == set(SPLITS):
        return _of_splits(name, source, modalities)
    if isinstance(source, str) and source == "digits":
        return _of_arrays("digits", digits(), modalities, **options)
    if name.endswith(".npz"):
        arrays = read_npz(name)
        return _of_arrays(name, arrays, modalities, **options)
    if isinstance(source, tuple) and len(source) == 2:
        x, y = source
        return _of_arrays(name, {**x, "y": y}, modalities, **options)
    return _of_table(
        name, source, modalities, label, columns or {}, id, root, **options
    )


def _of_splits(name: str, given: Mapping, modalities: Any) -> Data:
    """Takes splits as they are: `(x, y)`, or batches of them."""
    parts, start = {}, 0
    for split in SPLITS:
        part = given[split]
        if isinstance(part, tuple):
            x, y = dict(part[0]), np.asarray(part[1])
        else:
            x, y = (
                part,
                np.concatenate(
                    [np.asarray(ops.convert_to_numpy(b[1])) for b in part]
                ),
            )
        parts[split] = Part(x, y, np.arange(start, start + len(y)))
        start += len(y)
    first = parts["train"]
    if first.in_memory:
        names = tuple(modalities or (n for n in first.x if n != "presence"))
    else:
        inputs = next(iter(first.x))[0]
        names = tuple(modalities or (n for n in inputs if n != "presence"))
    for part in parts.values():
        if part.in_memory:
            keep = {
                n: np.asarray(part.x[n])
                if not isinstance(part.x[n], Mapping)
                else part.x[n]
                for n in names
            }
            presence = part.x.get("presence")
            if presence is not None:
                presence = np.asarray(stack_presence(names, presence), bool)
                keep["presence"] = presence
            part.x = keep
    y = np.concatenate([parts[s].y for s in SPLITS])
    task, units, classes = _task(name, y, first.y)
    ids = [str(i) for i in range(start)]
    data = Data(name, task, units, classes, names, [Fold(parts)], ids)
    return _described(data)


def _of_arrays(
    name: str,
    arrays: dict[str, Any],
    modalities: Any,
    split: str | None,
    group: str | None,
    folds: int | None,
    seed: int,
) -> Data:
    """Splits arrays by `split`, by seed, or in folds."""
    if "y" not in arrays:
        raise ValueError(
            f"{name} has no array 'y' with a label for each sample. "
            f"Received: arrays {sorted(arrays)}"
        )
    arrays = dict(arrays)
    y = np.asarray(arrays.pop("y"))
    parts_of = arrays.pop(split or "split", None)
    ids = arrays.pop("id", None)
    groups = arrays.pop(group or "group", None)
    presence = arrays.pop("presence", None)
    if (group and groups is None) or (split and parts_of is None):
        raise ValueError(
            f"{name} has no array {(split if parts_of is None else group)!r}. "
            f"Received: arrays {sorted(arrays)}"
        )
    unknown = [n for n in modalities or () if n not in arrays]
    if unknown:
        raise ValueError(
            f"{name} has no array {unknown[0]!r}. "
            f"Received: arrays {sorted(arrays)}"
        )
    x = {n: _modality(name, n, arrays[n]) for n in modalities or arrays}
    if not x:
        raise ValueError(f"{name} has no arrays beside 'y'.")
    for key, array in {**x, "split": parts_of, "id": ids}.items():
        rows = None if array is None else len(keras.tree.flatten(array)[0])
        if rows not in (None, len(y)):
            raise ValueError(
                f"The arrays of {name} must have the same length. Received: "
                f"{rows} in {key!r} and {len(y)} in 'y'"
            )
    if presence is not None:
        x["presence"] = np.asarray(stack_presence(tuple(x), presence), bool)
    strata = y if y.ndim == 1 and y.dtype.kind in "iub" else None
    all_rows = np.arange(len(y))
    if folds is not None:
        divided = _in_folds(len(y), folds, strata, groups, seed)
    elif parts_of is not None:
        divided = [_by_number(name, np.asarray(parts_of))]
    else:
        shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
        divided = [splits.at_random(len(y), shares, strata, groups, seed)]
    task, units, classes = _task(name, y, y[divided[0]["train"]])
    if task == "single_label":
        y = y.reshape(-1).astype("int32")
    names = tuple(n for n in x if n != "presence")
    names_of = all_rows if ids is None else ids
    data = Data(
        name,
        task,
        units,
        classes,
        names,
        [
            Fold(
                {s: Part(take(x, rows), y[rows], rows) for s, rows in p.items()}
            )
            for p in divided
        ],
        [str(i) for i in names_of],
    )
    return _described(data)


def _modality(name: str, key: str, array: Any) -> Any:
    if isinstance(array, Mapping):
        return array
    array = np.asarray(array)
    if array.dtype.kind not in "fiub" or array.ndim < 2:
        raise ValueError(
            f"The array {key!r} of {name} cannot be a modality: a modality has "
            "numbers of shape (samples, ...). Name the modalities. Received: "
            f"dtype {array.dtype}, shape {array.shape}"
        )
    return array.astype("float32") if array.dtype == np.float64 else array


def _by_number(name: str, split: np.ndarray) -> dict[str, np.ndarray]:
    rows = {s: np.flatnonzero(split == i) for i, s in enumerate(SPLITS)}
    if split.dtype.kind in "UO":
        rows = {s: np.flatnonzero(split == s) for s in SPLITS}
    empty = [s for s, part in rows.items() if not len(part)]
    if empty or sum(map(len, rows.values())) != len(split):
        raise ValueError(
            f"`split` of {name} must hold 0 (training), 1 (validation) and 2 "
            f"(test), each at least once. Received: {np.unique(split)}"
        )
    return rows


def _in_folds(
    count: int, folds: int, strata: Any, groups: Any, seed: int
) -> list[dict[str, np.ndarray]]:
    """Returns each fold's rows; a fifth of its training rows validate."""
    divided = []
    groups = None if groups is None else np.asarray(groups)
    for rest, test in splits.in_folds(count, folds, strata, groups, seed):
        inner = splits.at_random(
            len(rest),
            {"train": 0.8, "validation": 0.2},
            None if strata is None else strata[rest],
            None if groups is None else groups[rest],
            seed,
        )
        divided.append({**{s: rest[r] for s, r in inner.items()}, "test": test})
    return divided


def _task(name: str, y: np.ndarray, train: np.ndarray) -> tuple:
    """Returns task, number of outputs and classes, as labels suggest."""
    if y.ndim == 2 and y.shape[1] > 1:
        if np.isin(y, (0, 1)).all():
            return (
                "multi_label",
                y.shape[1],
                [str(i) for i in range(y.shape[1])],
            )
        return "regression", y.shape[1], None
    if y.dtype.kind == "f":
        return "regression", 1, None
    if y.dtype.kind not in "iub":
        raise ValueError(
            f"Labels of {name} must be classes (integers), numbers, or 0 and 1 "
            f"for each of several labels. Received: dtype {y.dtype}"
        )
    units = int(train.max()) + 1
    outside = y[(y < 0) | (y >= units)]
    if len(outside) or units < 2:
        raise ValueError(
            f"Labels of {name} must lie between 0 and the largest one of the "
            f"training split, {units - 1}. Received: "
            f"{outside[0] if len(outside) else 'one class alone'}"
        )
    return "single_label", units, [str(i) for i in range(units)]


def read_npz(path: str) -> dict[str, np.ndarray]:
    """Reads an `.npz` of plain arrays.

    Raises:
        ValueError: If there is no such file, or it holds objects.
    """
    if not pathlib.Path(path).is_file():
        raise ValueError(f"There is no file {path}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not an `.npz` of plain arrays (arrays of objects are "
            f"refused, since reading them may run code): {error}"
        ) from error


def digits() -> dict[str, np.ndarray]:
    """Returns digits of 8 x 8 pixels, with their halves as two modalities."""
    from sklearn.datasets import load_digits

    images, y = load_digits(return_X_y=True)
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    split = np.zeros(len(y), int)
    for index, rows in enumerate(
        splits.at_random(len(y), shares, y, None, 0).values()
    ):
        split[rows] = index
    return {
        "top": images[:, :32],
        "bottom": images[:, 32:],
        "y": y,
        "split": split,
    }


# === Tables ===


def _of_table(
    name: str,
    source: Any,
    modalities: Any,
    label: Any,
    columns: Mapping[str, Sequence[str]],
    id: str | None,
    root: str | None,
    split: str | None,
    group: str | None,
    folds: int | None,
    seed: int,
) -> Data:
    if isinstance(source, str | os.PathLike):
        frame = read_table(source)
    else:
        import pandas as pd

        frame = (
            source if isinstance(source, pd.DataFrame) else pd.DataFrame(source)
        )
    if label is None:
        raise ValueError(
            "Say which column holds the labels: `label=` (or --label). "
            f"Columns: {list(frame.columns)}"
        )
    left = _not_modalities(label, id, split, group)
    given, kinds = _modalities(frame, modalities, columns, left)

    def new() -> Table:
        return Table(given, label, id=id, kinds=kinds, root=root)

    table = new()
    if folds is not None:
        divided = [
            {**_inner(new(), rest, group, seed), "test": test}
            for rest, test in table.folds(frame, folds, group=group, seed=seed)
        ]
    elif split is not None:
        divided = [table.split(frame, column=split, group=group)]
        for missing in set(SPLITS) - set(divided[0]):
            raise ValueError(
                f"Column {split!r} names no rows for {missing!r}: a comparison "
                f"needs {list(SPLITS)}. Received: {sorted(divided[0])}"
            )
    else:
        shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
        divided = [table.split(frame, shares, group=group, seed=seed)]
    position = {index: i for i, index in enumerate(frame.index)}
    found = []
    for parts in divided:
        table = new().adapt(parts["train"], verbose=0)
        made = {}
        for part in SPLITS:
            rows = parts[part]
            x, y = table.arrays(rows)
            x = stacked(table.modalities, x)
            at = np.array([position[index] for index in rows.index])
            made[part] = Part(x, y, at)
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
    )
    return _described(data)


def _inner(table: Table, rest: Any, group: str | None, seed: int) -> dict:
    shares = {"train": 0.8, "validation": 0.2}
    return table.split(rest, shares, group=group, seed=seed)


def _not_modalities(label: Any, *others: str | None) -> set[str]:
    if isinstance(label, str):
        named = {label}
    else:
        named = set(getattr(label, "columns", label))
    return named | {name for name in others if name is not None}


def _modalities(
    frame: Any,
    modalities: Any,
    columns: Mapping[str, Sequence[str]],
    left: set[str],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns what `Table` takes: modalities, and the kinds of columns."""
    kinds = {
        column: {
            "audio": "sound",
            "numeric": "number",
            "categorical": "category",
        }.get(kind, kind)
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


# === What the report tells ===


def _described(data: Data) -> Data:
    """Adds sizes, and samples of which another split has a copy."""
    first = data.folds[0].parts
    data.facts["samples"] = {s: len(part.y) for s, part in first.items()}
    if all(part.in_memory for part in first.values()):
        prints = {s: _fingerprints(part) for s, part in first.items()}
        data.facts["test samples with a copy in training or validation"] = sum(
            p in prints["train"] | prints["validation"]
            for p in _listed(first["test"])
        )
    return data


def _listed(part: Part) -> list[bytes]:
    leaves = keras.tree.flatten(
        {k: v for k, v in part.x.items() if k != "presence"}
    )
    return [
        hashlib.blake2b(
            b"".join(
                np.ascontiguousarray(leaf[i]).tobytes() for leaf in leaves
            ),
            digest_size=16,
        ).digest()
        for i in range(len(part.y))
    ]


def _fingerprints(part: Part) -> set[bytes]:
    return set(_listed(part))
