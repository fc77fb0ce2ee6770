"""Checks the arguments of `compare`, before any data are read."""

import functools
import math
import numbers
import os
import re
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np

from keras_mla.comparison.data import SPLITS, Data
from keras_mla.comparison.encoders import KINDS
from keras_mla.comparison.names import hint
from keras_mla.comparison.training import OPTIMIZERS
from keras_mla.datasets.table import Label
from keras_mla.datasets.table.label import TASKS

# Seeds that Keras and NumPy take.
_MOST_SEED = 2**32
_OF_TABLES = ("label", "columns", "id", "root")
_OF_DIVISION = ("split", "group", "folds")
# Which arguments mean nothing for data that `form_of` names so.
_MEANINGLESS = {
    "a `Data`": ("modalities", *_OF_TABLES, *_OF_DIVISION, "task"),
    "given splits": (*_OF_TABLES, *_OF_DIVISION),
    "arrays": _OF_TABLES,
    "a table": (),
}


# === Numbers ===


def whole(name: str, value: Any, least: int = 1) -> int:
    """Returns a whole number.

    Raises:
        ValueError: If it is none, or less than `least`.
    """
    if not _is_whole(value) or value < least:
        raise ValueError(
            f"`{name}` must be a whole number, at least {least}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def seeds(value: Any) -> tuple[int, ...]:
    """Returns seeds, of which the number or a list is given.

    Raises:
        ValueError: If there are none, or one is no seed or is there twice.
    """
    if _is_whole(value) and value >= 1:
        return tuple(range(int(value)))
    found = _listed(value)
    if (
        not found
        or not all(_is_whole(s) and 0 <= s < _MOST_SEED for s in found)
        or len(set(found)) < len(found)
    ):
        raise ValueError(
            "`seeds` must be a number of seeds, at least 1, or a list of "
            f"different whole numbers from 0 on. Received: seeds={value!r}"
        )
    return tuple(map(int, found))


def rates(name: str, value: Any, zero: bool = False) -> list[float]:
    """Returns values to choose from.

    Args:
        name: str. The argument.
        value: What is given.
        zero: bool. Whether a value may be 0.

    Raises:
        ValueError: If there are none, or one is no such number.
    """
    found = _listed(value)
    if not found or not all(_is_rate(rate, zero) for rate in found):
        raise ValueError(
            f"`{name}` must be a list of numbers "
            f"{'of at least' if zero else 'above'} 0. "
            f"Received: {name}={value!r}"
        )
    # A number of NumPy is none for the log.
    return [r.item() if isinstance(r, np.generic) else r for r in found]


def settings(value: Any, methods: Mapping) -> dict[str, list[dict]]:
    """Returns settings that are given, by the title of their method.

    Raises:
        ValueError: If one is for no method, or no setting.
    """
    if not isinstance(value or {}, Mapping):
        raise ValueError(
            "`settings` must be a dict of a method's title to its setting. "
            f"Received: settings={value!r}"
        )
    for title, setting in (value or {}).items():
        if title not in methods:
            raise ValueError(
                f"`settings` names {title!r}, which is not compared."
                f"{hint(str(title), methods)} Methods: {list(methods)}"
            )
        lacking = {"learning_rate", "weight_decay"} - set(
            setting if isinstance(setting, Mapping) else ()
        )
        if lacking:
            raise ValueError(
                f"The setting of {title!r} must be a dict that holds "
                f"{sorted(lacking)}. Received: {setting!r}"
            )
    return {title: [dict(given)] for title, given in (value or {}).items()}


def budget(value: Any) -> float:
    """Returns the seconds of a time budget, without one infinity.

    Raises:
        ValueError: If it is no number of at least 0.
    """
    if value is None:
        return math.inf
    if not _is_number(value) or not value >= 0:
        raise ValueError(
            "`time_budget` must be a number of seconds, at least 0. "
            f"Received: time_budget={value!r}"
        )
    return float(value)


def _listed(value: Any) -> list:
    """Returns the items of a list; nothing if it is no list."""
    plain = isinstance(value, Sequence | np.ndarray) and np.ndim(value) == 1
    return list(value) if plain and not isinstance(value, str) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_rate(value: Any, zero: bool) -> bool:
    return (
        _is_number(value)
        and math.isfinite(value)
        and (value > 0 or (zero and value == 0))
    )


# === Functions ===


def check_functions(encoders: Any, optimizer: Any, callbacks: Any) -> None:
    """Raises unless these are names that are known, or functions.

    Raises:
        ValueError: If one is neither.
    """
    if encoders is not None and not isinstance(encoders, Mapping):
        raise ValueError(
            "`encoders` must be a dict of modality to a kind of encoder, a "
            f"preset or a function. Received: encoders={encoders!r}"
        )
    for name, given in (encoders or {}).items():
        if not isinstance(given, str | os.PathLike):  # A kind, or a preset.
            _check_function(f"encoders[{name!r}]", given, KINDS, "encoder")
    _check_function("optimizer", optimizer, list(OPTIMIZERS), "optimizer")
    wrong = [c for c in callbacks if not callable(c)]
    if wrong:
        raise ValueError(
            "Each of `callbacks` must be a function that returns a new "
            f"callback. Received: {wrong[0]!r}"
        )


def _check_function(
    name: str, given: Any, known: Sequence[str], what: str
) -> None:
    if given not in known and (isinstance(given, str) or not callable(given)):
        near = hint(given, known) if isinstance(given, str) else ""
        raise ValueError(
            f"`{name}` must be one of {list(known)}, or a function that "
            f"returns a new {what}.{near} Received: {given!r}"
        )


def named(function: Any) -> str:
    """Returns what the log knows a function by.

    It is the function's name. A lambda has a line besides, and a
    `functools.partial` has the arguments.
    """
    if isinstance(function, functools.partial):
        parts = [function.func, *function.args]
        told = [_told(part) for part in parts]
        told += [f"{k}={_told(v)}" for k, v in function.keywords.items()]
        return f"partial({', '.join(told)})"
    name = getattr(function, "__qualname__", type(function).__name__)
    code = getattr(function, "__code__", None)
    if "<lambda>" not in name or code is None:
        return name
    return f"{function.__module__}.{name}, line {code.co_firstlineno}"


def _told(value: Any) -> str:
    """Returns a value as each process writes it, without its address."""
    if callable(value):
        return named(value)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


# === Data ===


def form_of(data: Any) -> str:
    """Returns what data are, as messages name it.

    Raises:
        ValueError: If they are arrays with more than inputs and labels.
    """
    if isinstance(data, Data):
        return "a `Data`"
    if isinstance(data, Mapping) and set(data) == set(SPLITS):
        for split in SPLITS:
            _check_pair(f"data[{split!r}]", data[split])
        return "given splits"
    if isinstance(data, tuple):
        _check_pair("data", data)
        if not isinstance(data[0], Mapping):
            raise ValueError(
                "`data` of arrays must be `(x, y)`, `x` a dict of modality to "
                f"array. Received: x of type {type(data[0]).__name__}"
            )
        return "arrays"
    name = str(data) if isinstance(data, str | os.PathLike) else ""
    return "arrays" if name == "digits" or name.endswith(".npz") else "a table"


def _check_pair(name: str, given: Any) -> None:
    if isinstance(given, tuple) and len(given) != 2:
        raise ValueError(
            f"`{name}` must be `(x, y)`: a comparison takes no weights of "
            f"samples. Received: a tuple of {len(given)}"
        )


def check_data(data: Any, **given: Any) -> None:
    """Raises if an argument means nothing for the data.

    Args:
        data: The data, as `compare` takes them.
        **given: Arguments of `compare`. What is `None` or empty is not given.

    Raises:
        ValueError: The message names the argument.
    """
    form = form_of(data)
    for name in _MEANINGLESS[form]:
        value = given[name]
        empty = isinstance(value, Sized) and not len(value)
        if value is not None and not empty:
            raise ValueError(
                f"`{name}` means nothing for {form}: leave it out. "
                f"Received: {name}={value!r}"
            )
    if given["columns"] and given["modalities"]:
        raise ValueError("Give `columns` or `modalities`, not both.")
    task = given["task"]
    if task is not None and task not in TASKS:
        raise ValueError(
            f"`task` must be one of {list(TASKS)}.{hint(str(task), TASKS)} "
            f"Received: task={task!r}"
        )
    if task is not None and isinstance(given["label"], Label):
        raise ValueError(
            "Give `task`, or a `table.Label` with its own, not both. "
            f"Received: task={task!r}"
        )
