"""Columns of numbers and categories, as one vector."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mla.datasets.listing import Sample
from keras_mla.datasets.pipeline import Reader
from keras_mla.datasets.table import cells
from keras_mla.datasets.table.field import Field

KINDS = ("number", "category")


class Values(Field):
    """Numbers and categories, joined to one vector.

    A number becomes `(x - mean) / deviation`, with the mean and the standard
    deviation (over n) of the training rows. A category becomes a one where its
    category is, and zeros elsewhere. An empty number is the mean, so 0; if the
    column has empty cells in the training rows, a further value is 1 where the
    cell is empty. An empty category, and one that the training rows do not
    have, is all zeros. A row without any of the cells lacks the modality.

    Args:
        columns: str or sequence of str. Names of columns.
        kinds: dict of column to `"number"` or `"category"`. Defaults to what
            the training rows look like.
        scale: bool. Whether to standardise numbers. Defaults to `True`.
        max_categories: int. The most categories of a column, the most frequent
            ones. The others are as unknown ones. Defaults to `256`.

    Raises:
        ValueError: If `columns` has no name or a name twice, `kinds` has
            another column or another kind, or `max_categories` is less than 1.

    Example:
    >>> from keras_mla.datasets import table
    >>> facts = table.Values(["price", "brand"], {"brand": "category"})
    >>> rows = {"price": [1.0, 3.0], "brand": ["a", "b"]}
    >>> t = table.Table({"facts": facts}).adapt(rows, verbose=0)
    >>> t.inputs(rows)["facts"]
    array([[-1.,  1.,  0.],
           [ 1.,  0.,  1.]], dtype=float32)
    """

    kind = "values"

    def __init__(
        self,
        columns: str | Sequence[str],
        kinds: Mapping[str, str] | None = None,
        scale: bool = True,
        max_categories: int = 256,
    ) -> None:
        super().__init__(columns)
        self.kinds = dict(kinds or {})
        wrong = {
            column: kind
            for column, kind in self.kinds.items()
            if column not in self.columns or kind not in KINDS
        }
        if wrong:
            raise ValueError(
                f"`kinds` must map some of the columns {list(self.columns)} to "
                f"'number' or 'category'. Received: {wrong}"
            )
        if max_categories < 1:
            raise ValueError(
                "`max_categories` must be at least 1. "
                f"Received: max_categories={max_categories}"
            )
        self.scale = scale
        self.max_categories = max_categories

    def adapt(self, frame: Any) -> None:
        """Learns means, deviations and categories from rows."""
        self.learned = {
            column: self._learn(frame, column) for column in self.columns
        }

    def _learn(self, frame: Any, column: str) -> dict[str, Any]:
        kind = self.kinds.get(column)
        if kind is None:
            numeric = cells.holds_numbers(frame[column])
            kind = "number" if numeric else "category"
        if kind == "category":
            categories = self._categories(frame[column])
            _check_some(column, categories)
            return {"categories": categories}
        numbers = cells.numbers_of(frame, column)
        empty = np.isnan(numbers)
        held = numbers[~empty]
        _check_some(column, held)
        mean, deviation = 0.0, 1.0
        if self.scale:
            # The mean of equal numbers may differ from them by rounding.
            constant = bool(held.min() == held.max())
            mean = float(held[0] if constant else held.mean())
            deviation = 1.0 if constant else float(held.std()) or 1.0
        return {
            "mean": mean,
            "deviation": deviation,
            "marks_empty": bool(empty.any()),
        }

    def _categories(self, column: Any) -> list[str]:
        import pandas as pd

        counts = pd.Series(cells.names_of(column), dtype=object).value_counts()
        counts = counts[counts.index != ""]
        # Ties are broken by the alphabet, not by the order of rows.
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return sorted(str(word) for word, _ in ordered[: self.max_categories])

    def present(self, frame: Any) -> np.ndarray:
        """Returns which rows have a cell that says something."""
        empty = [
            cells.is_empty(frame[column])
            if "categories" in self.known()[column]
            else np.isnan(cells.numbers_of(frame, column))
            for column in self.columns
        ]
        return ~np.logical_and.reduce(empty)

    def values(
        self, frame: Any, present: np.ndarray, root: str | None = None
    ) -> np.ndarray:
        """Returns float32 vectors `(rows, size)`."""
        out: np.ndarray = np.zeros((len(frame), *self.shape), np.float32)
        start = 0
        known = self.known()
        for column in self.columns:
            what = known[column]
            stop = start + _size(what)
            if "categories" in what:
                _one_hot(frame[column], what["categories"], out[:, start:stop])
            else:
                numbers = cells.numbers_of(frame, column)
                empty = np.isnan(numbers)
                scaled = (numbers - what["mean"]) / what["deviation"]
                far = np.abs(scaled) > cells.LARGEST
                if far.any():
                    first = int(far.argmax())
                    raise ValueError(
                        f"{cells.place(frame, first, column)}: the number is "
                        "too far from the training rows. "
                        f"Received: {numbers[first]}"
                    )
                out[:, start] = np.where(empty, 0.0, scaled)
                if what["marks_empty"]:
                    out[:, start + 1] = empty
            start = stop
        # What marks empty cells says nothing of a row that has no cell.
        out[~present] = 0.0
        return out

    def reader(self, modality: str) -> Reader:
        """Returns the reader of vectors."""
        return Reader(
            functools.partial(value_of, modality), "float32", self.shape
        )

    @property
    def shape(self) -> tuple[int]:
        """Length of the vector."""
        return (sum(_size(what) for what in self.known().values()),)

    def describe(self) -> str:
        """Returns the length of the vector and the kinds of columns."""
        known = self.known()
        parts = [
            f"{column}: {len(known[column]['categories'])} categories"
            if "categories" in known[column]
            else f"{column}: number"
            for column in self.columns
        ]
        return f"a vector of {self.shape[0]} ({', '.join(parts)})"

    def can_learn(self, learned: dict[str, Any]) -> bool:
        """Returns whether a dict has the form of what `adapt` learns."""
        return learned.keys() == set(self.columns) and all(
            isinstance(what, dict) and _is_learned(what)
            for what in learned.values()
        )

    def get_config(self) -> dict[str, Any]:
        """Returns arguments, and what was learned, as JSON has them."""
        return {
            **super().get_config(),
            "kinds": self.kinds,
            "scale": self.scale,
            "max_categories": self.max_categories,
        }


def value_of(modality: str, sample: Sample) -> Any:
    """Decodes what needs no decoding."""
    return sample.inputs[modality]


def _check_some(column: str, held: Any) -> None:
    if not len(held):
        raise ValueError(f"Column {column!r} is empty in all training rows.")


def _is_learned(what: dict[str, Any]) -> bool:
    if what.keys() == {"categories"}:
        found = what["categories"]
        return (
            isinstance(found, list)
            and all(isinstance(word, str) for word in found)
            and 0 < len(set(found)) == len(found)
        )
    return (
        what.keys() == {"mean", "deviation", "marks_empty"}
        and all(isinstance(what[k], float) for k in ("mean", "deviation"))
        and bool(np.isfinite(what["mean"]) and what["deviation"] > 0)
        and isinstance(what["marks_empty"], bool)
    )


def _size(what: dict[str, Any]) -> int:
    if "categories" in what:
        return len(what["categories"])
    return 1 + what["marks_empty"]


def _one_hot(column: Any, categories: list[str], out: np.ndarray) -> None:
    import pandas as pd

    codes = pd.Index(categories, dtype=object).get_indexer(
        cells.names_of(column)
    )
    rows = np.flatnonzero(codes >= 0)
    out[rows, codes[rows]] = 1.0
