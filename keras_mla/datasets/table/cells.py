"""Cells of a column: empty ones, numbers, words, and where they stand."""

import unicodedata
from typing import Any

import numpy as np

# The largest number that float32 holds.
LARGEST = float(np.finfo(np.float32).max)
# What people write into a cell of a column of numbers that has no number.
_NO_NUMBER = frozenset(["", "na", "n/a", "nan", "null", "none", "-", "?", "."])


def place(frame: Any, position: int, column: str = "") -> str:
    """Returns the words that say where a cell is, for an error message.

    Args:
        frame: DataFrame, perhaps from `read_table`, or a column of one.
        position: int. Position of the row in `frame`.
        column: str. Name of the column.
    """
    source = frame.attrs.get("source")
    label = frame.index[position]
    label = label.item() if isinstance(label, np.generic) else label
    if source is not None and isinstance(label, int | np.integer):
        # As a person counts: without the header, from 1.
        row = f"{source}, row {int(label) + 1}"
    else:
        row = f"the row with index {label!r}"
        if not frame.index.is_unique:
            row += f" in position {position}"
    return f"{row}, column {column!r}" if column else row


def check_columns(frame: Any, columns: Any, what: str) -> None:
    """Raises `ValueError` unless the frame has each column, once."""
    names = list(frame.columns)
    for column in columns:
        if names.count(column) == 1:
            continue
        source = frame.attrs.get("source")
        held = f"{source} has" if source else "The table has"
        problem = (
            f"no column {column!r}"
            if column not in names
            else f"several columns {column!r}"
        )
        raise ValueError(
            f"{held} {problem}, which {what} needs. Its columns: "
            f"{', '.join(map(repr, names[:30]))}"
            f"{', ...' if len(names) > 30 else ''}"
        )


def is_empty(column: Any) -> np.ndarray:
    """Returns which cells of a Series are empty: None, NaN, or only spaces."""
    import pandas as pd

    empty = column.isna().to_numpy(bool, copy=True)
    if isinstance(column.dtype, pd.StringDtype):
        empty |= (column.str.strip() == "").fillna(False).to_numpy(bool)
    elif is_text(column):
        words = column.to_numpy(object)
        for i in np.flatnonzero(~empty):
            word = words[i]
            empty[i] = isinstance(word, str) and (not word or word.isspace())
    return empty


def is_text(column: Any) -> bool:
    """Returns whether a Series may hold strings."""
    import pandas as pd

    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        kind = kind.categories.dtype
    return kind.kind == "O" or isinstance(kind, pd.StringDtype)


def is_number(column: Any) -> bool:
    """Returns whether a Series holds numbers, or yes and no."""
    import pandas as pd

    kinds = pd.api.types
    return (
        not isinstance(column.dtype, pd.CategoricalDtype)
        and column.dtype.kind != "c"
        and (
            kinds.is_numeric_dtype(column.dtype) or kinds.is_bool_dtype(column)
        )
    )


def holds_numbers(column: Any) -> bool:
    """Returns whether all cells that say something are numbers."""
    if is_number(column):
        return True
    if not is_text(column):
        return False
    # A look at some cells spares the conversion of a column of texts.
    for part in (column.iloc[:: max(1, len(column) // 50)], column):
        values, wrong = _numbers(part)
        if wrong.any():
            return False
    return bool(np.isfinite(values).any())


def numbers_of(frame: Any, name: str) -> np.ndarray:
    """Returns a column as float64, NaN where a cell is empty.

    Raises:
        ValueError: If a cell holds something else than a finite number of
            float32.
    """
    values, wrong = _numbers(frame[name])
    wrong |= np.abs(values) > LARGEST
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"{place(frame, first, name)}: expected a finite number, at most "
            f"{LARGEST:.2g}. Received: {_short(frame[name].iloc[first])}"
        )
    return values


def _numbers(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns float64 values, and which cells are neither number nor empty."""
    import pandas as pd

    if is_number(column):
        values = column.to_numpy(np.float64, na_value=np.nan)
        return values, np.zeros(len(values), bool)
    cells = column.to_numpy(object)
    try:
        numbers = pd.to_numeric(cells, errors="coerce")
    except OverflowError:  # An integer is too large for float64: infinity.
        words = [str(c) if isinstance(c, int) else c for c in cells]
        numbers = pd.to_numeric(np.array(words, object), errors="coerce")
    values = np.asarray(numbers, np.float64)
    wrong = np.isnan(values)
    for i in np.flatnonzero(wrong):
        cell = cells[i]
        if isinstance(cell, str):
            wrong[i] = cell.strip().casefold() not in _NO_NUMBER
        else:
            wrong[i] = not pd.api.types.is_scalar(cell) or not pd.isna(cell)
    return values, wrong


def words_of(column: Any) -> np.ndarray:
    """Returns cells as stripped strings, `""` where a cell is empty.

    A whole number is written without a decimal point, so that 3 and 3.0, which
    pandas reads where the column has an empty cell, are one word.

    Raises:
        ValueError: If a cell holds several values, or bytes.
    """
    import pandas as pd

    if isinstance(column.dtype, pd.StringDtype):
        return column.str.strip().fillna("").to_numpy(object)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iub":
        return column.astype(str).to_numpy(object)
    cells = column.to_numpy(object)
    words: np.ndarray = np.empty(len(cells), object)
    for i, cell in enumerate(cells):
        if isinstance(cell, str):
            words[i] = cell.strip()
        elif hasattr(cell, "__iter__"):
            raise ValueError(
                f"{place(column, i, column.name)}: expected a word or a "
                f"number. Received: {_short(cell)}"
            )
        elif cell is None or cell is pd.NA or cell != cell:
            words[i] = ""
        elif isinstance(cell, float | np.floating) and cell.is_integer():
            words[i] = str(int(cell))
        else:
            words[i] = str(cell)
    return words


def names_of(column: Any) -> np.ndarray:
    """Returns cells as `words_of` does, accents and letters composed (NFC).

    Two ways to write one name are one name then. Paths must stay as they are.
    """
    import pandas as pd

    if isinstance(column.dtype, pd.StringDtype):
        # Names are few, and rows are many.
        codes, different = pd.factorize(column)
        names = names_of(pd.Series(different, dtype=object))
        return np.append(names, [""])[codes]
    words = words_of(column)
    for i, word in enumerate(words):
        if not word.isascii():
            words[i] = unicodedata.normalize("NFC", word)
    return words


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
