"""Reads the data of a comparison, as arrays or as a table."""

import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.comparison.data import (
    INNER,
    SHARES,
    SPLITS,
    Data,
    Division,
    Fold,
    Part,
    described,
)
from keras_mla.comparison.frozen import Presets
from keras_mla.comparison.tables import from_table
from keras_mla.core.batch import RESERVED
from keras_mla.datasets.table import Label, splits
from keras_mla.presence import stack_presence


def load(
    source: Any,
    *,
    modalities: Any = None,
    label: Any = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    id: str | None = None,
    root: str | None = None,
    division: Division = Division(),  # noqa: B008
    presets: Presets = Presets(),  # noqa: B008
    task: str | None = None,
) -> Data:
    """Returns the data of a comparison, as `compare` takes them.

    Raises:
        ValueError: If the data or the arguments are not of a known form.
    """
    if isinstance(source, Data):
        presets.check(source.modalities)
        late = [name for name in presets.names if name not in source.frozen]
        if late:
            raise ValueError(
                "Presets encode data as these are loaded, and a `Data` is "
                f"loaded: give `presets` to `sources.load`. Received: {late}"
            )
        return source
    name = str(source) if isinstance(source, str | os.PathLike) else "data"
    if isinstance(source, Mapping) and set(source) == set(SPLITS):
        return _of_splits(name, source, modalities, presets, task)
    if isinstance(source, str) and source == "digits":
        return _of_arrays(name, digits(), modalities, division, presets, task)
    if name.endswith(".npz"):
        return _of_arrays(
            name, read_npz(name), modalities, division, presets, task
        )
    if isinstance(source, tuple) and len(source) == 2:
        x, y = source
        return _of_arrays(
            name, {**x, "y": y}, modalities, division, presets, task
        )
    if task is not None and label is not None:
        label = Label(label, task)
    return from_table(
        name,
        source,
        modalities,
        label,
        columns or {},
        id,
        root,
        division,
        presets,
    )


def _of_splits(
    name: str,
    given: Mapping,
    modalities: Any,
    presets: Presets,
    task: str | None,
) -> Data:
    """Takes splits as they are: `(x, y)`, or batches of them."""
    parts, start = {}, 0
    for split in SPLITS:
        part = given[split]
        if isinstance(part, tuple):
            x, y = part[0], np.asarray(part[1])
            x = dict(x) if isinstance(x, Mapping) else x
        else:
            x, y = (
                part,
                np.concatenate(
                    [np.asarray(ops.convert_to_numpy(b[1])) for b in part]
                ),
            )
        y = _labels(name, y, task)
        parts[split] = Part(x, y, np.arange(start, start + len(y)))
        start += len(y)
    first = parts["train"]
    if first.in_memory:
        names = tuple(modalities or (n for n in first.x if n not in RESERVED))
    else:
        inputs = next(iter(first.batches()))[0]
        names = tuple(modalities or (n for n in inputs if n not in RESERVED))
    for part in parts.values():
        if part.in_memory:
            part.source = _inputs(names, part.source)
    presets.check(names)
    if all(part.in_memory for part in parts.values()):
        frozen = presets.of_inputs(first.source, cached=True)
        for part in parts.values():
            part.source = presets.features_of(part.source, frozen)
    else:
        # What is shuffled or augmented has no features to keep.
        some = first.x if first.in_memory else inputs
        frozen = presets.of_inputs(some, cached=False)
    y = np.concatenate([parts[s].y for s in SPLITS])
    task, units, classes = _task(name, y, first.y, task)
    ids = [str(i) for i in range(start)]
    folds = [Fold(parts)]
    data = Data(name, task, units, classes, names, folds, ids, frozen)
    return described(data)


def _inputs(names: Sequence[str], x: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arrays of some modalities, and presence as one array."""
    kept = {n: keras.tree.map_structure(np.asarray, x[n]) for n in names}
    if x.get("presence") is not None:
        presence = stack_presence(tuple(names), x["presence"])
        kept["presence"] = np.asarray(presence, bool)
    return kept


def _of_arrays(
    name: str,
    arrays: dict[str, Any],
    modalities: Any,
    division: Division,
    presets: Presets,
    task: str | None,
) -> Data:
    """Splits arrays by `split`, by seed, or in folds."""
    split, group, seed = division.split, division.group, division.seed
    if "y" not in arrays:
        raise ValueError(
            f"{name} has no array 'y' with a label for each sample. "
            f"Received: arrays {sorted(arrays)}"
        )
    arrays = dict(arrays)
    y = _labels(name, np.asarray(arrays.pop("y")), task)
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
    others = {"split": parts_of, "id": ids, "group": groups}
    for key, array in {**x, **others}.items():
        rows = None if array is None else len(keras.tree.flatten(array)[0])
        if rows not in (None, len(y)):
            raise ValueError(
                f"The arrays of {name} must have the same length. Received: "
                f"{rows} in {key!r} and {len(y)} in 'y'"
            )
    if presence is not None:
        if isinstance(presence, Mapping):
            presence = {n: presence[n] for n in x if n in presence}
            presence = stack_presence(tuple(x), presence)
        else:  # Its columns are all arrays, in their order.
            presence = np.asarray(presence, bool)
            if presence.shape != (len(y), len(arrays)):
                raise ValueError(
                    f"The array 'presence' of {name} must have a column for "
                    f"each of {list(arrays)}. Received: shape {presence.shape}"
                )
            presence = presence[:, [list(arrays).index(n) for n in x]]
        x["presence"] = np.asarray(presence, bool)
    presets.check([n for n in x if n != "presence"])
    frozen = presets.of_inputs(x, cached=True)
    x = presets.features_of(x, frozen)
    strata = y if y.ndim == 1 and y.dtype.kind in "iub" else None
    all_rows = np.arange(len(y))
    if division.folds is not None:
        divided = _in_folds(len(y), division.folds, strata, groups, seed)
    elif parts_of is not None:
        divided = [_by_number(name, np.asarray(parts_of))]
        if groups is not None:
            _check_groups(name, divided[0], np.asarray(groups))
    else:
        divided = [splits.at_random(len(y), SHARES, strata, groups, seed)]
    task, units, classes = _task(name, y, y[divided[0]["train"]], task)
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
            Fold({s: Part(x, y[rows], rows, True) for s, rows in p.items()})
            for p in divided
        ],
        [str(i) for i in names_of],
        frozen,
        groups=None if groups is None else np.asarray(groups),
    )
    return described(data)


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


def _check_groups(
    name: str, parts: dict[str, np.ndarray], groups: np.ndarray
) -> None:
    """Raises if a group is in two splits."""
    seen: dict[Any, str] = {}
    for split, rows in parts.items():
        for group in np.unique(groups[rows]).tolist():
            if seen.setdefault(group, split) != split:
                raise ValueError(
                    f"Group {group!r} of {name} is in {seen[group]!r} and in "
                    f"{split!r}."
                )


def _in_folds(
    count: int, folds: int, strata: Any, groups: Any, seed: int
) -> list[dict[str, np.ndarray]]:
    """Returns each fold's rows; a fifth of its training rows validate."""
    divided = []
    groups = None if groups is None else np.asarray(groups)
    for rest, test in splits.in_folds(count, folds, strata, groups, seed):
        inner = splits.at_random(
            len(rest),
            INNER,
            None if strata is None else strata[rest],
            None if groups is None else groups[rest],
            seed,
        )
        divided.append({**{s: rest[r] for s, r in inner.items()}, "test": test})
    return divided


def _labels(name: str, y: np.ndarray, task: str | None) -> np.ndarray:
    """Returns labels as a task has them, which are the labels without one.

    Raises:
        ValueError: If labels cannot be those of the task.
    """
    numbers = y.dtype.kind in "fiub" and y.ndim in (1, 2)
    fit = {
        "single_label": numbers and y.size == len(y) and (y % 1 == 0).all(),
        "multi_label": numbers and y.ndim == 2 and np.isin(y, (0, 1)).all(),
        "regression": numbers,
    }
    if task is None:
        return y
    if not fit[task]:
        raise ValueError(
            f"Labels of {name} must suit task={task!r}: a whole number for "
            "each sample (single_label), 0 and 1 in a column for each label "
            "(multi_label), or numbers (regression). "
            f"Received: dtype {y.dtype}, shape {y.shape}"
        )
    return y.astype("int32" if task == "single_label" else "float32")


def _task(
    name: str, y: np.ndarray, train: np.ndarray, task: str | None = None
) -> tuple:
    """Returns task, number of outputs and classes, as labels suggest."""
    columns = 1 if y.ndim == 1 else y.shape[1]
    if task == "regression":
        return task, columns, None
    if task == "multi_label":
        return task, columns, [str(i) for i in range(columns)]
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
    split: np.ndarray = np.zeros(len(y), int)
    for index, rows in enumerate(
        splits.at_random(len(y), SHARES, y, None, 0).values()
    ):
        split[rows] = index
    return {
        "top": images[:, :32],
        "bottom": images[:, 32:],
        "y": y,
        "split": split,
    }
