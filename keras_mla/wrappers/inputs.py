"""What users of scikit-learn pass as X, as the inputs of a model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mla.comparison.tables import modalities_of
from keras_mla.core.arrays import full_presence
from keras_mla.datasets import presence_of
from keras_mla.datasets.extras import need
from keras_mla.datasets.table import Table
from keras_mla.datasets.table.field import Field
from keras_mla.presence import stack_presence

# The modality of a matrix of which nothing else is said.
_ALONE = "features"


def is_keyed(X: Any) -> bool:
    """Returns whether X is a dict or a list of dicts."""
    if isinstance(X, list | tuple):
        return len(X) > 0 and isinstance(X[0], Mapping)
    # A sparse matrix may be a mapping of positions.
    return isinstance(X, Mapping) and not hasattr(X, "toarray")


def as_rows(X: Any, names: Sequence[str] | None = None) -> Any:
    """Returns arrays by modality as a dict, and all else as a DataFrame.

    Args:
        X: DataFrame, matrix, list of dicts, dict of columns, or dict of
            modality to array.
        names: Names of the columns of a matrix. Defaults to x0, x1, ...

    Raises:
        ValueError: If columns have different lengths.
    """
    pd = need("pandas", "read tables")
    if isinstance(X, Mapping):
        given = {n: v for n, v in X.items() if v is not None}
        if all(_is_column(value) for value in given.values()):
            return pd.DataFrame(dict(X))
        return {n: v if n == "presence" else _arrays(v) for n, v in X.items()}
    if is_keyed(X):
        return pd.DataFrame.from_records(list(X))
    named = isinstance(X, pd.DataFrame)
    if named and names is None and all(isinstance(c, str) for c in X.columns):
        return X
    frame = pd.DataFrame(X, copy=False)
    names = names or [f"x{i}" for i in range(frame.shape[1])]
    return frame.set_axis(list(names), axis=1)


def _is_column(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return not any(
            isinstance(cell, Mapping | list | tuple | np.ndarray)
            for cell in value
        )
    return not isinstance(value, Mapping) and np.ndim(value) == 1


def _arrays(value: Any) -> Any:
    """Returns a modality's values as arrays, in the structure they have."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {name: _arrays(part) for name, part in value.items()}
    if isinstance(value, list | tuple) and hasattr(
        next(iter(value), 0), "shape"
    ):
        return type(value)(_arrays(part) for part in value)
    return np.asarray(value)


class Inputs:
    """Learns from training rows what a model's inputs are.

    Args:
        columns: dict of modality to what its columns are, see
            `SKLearnMultimodalClassifier`; or `None`.
        kinds: dict of column to kind, as for `keras_mla.datasets.Table`.
        root: Folder of files, as for `keras_mla.datasets.Table`.

    Attributes:
        modalities: tuple of names.
        table: The adapted `Table`, or `None` if inputs are arrays.
    """

    def __init__(
        self,
        columns: Mapping[str, Any] | None,
        kinds: Mapping[str, str] | None,
        root: Any,
    ) -> None:
        if columns is not None and not isinstance(columns, Mapping):
            raise TypeError(
                "`columns` must be a dict of modality to columns. "
                f"Received: columns={columns!r}"
            )
        self.columns = columns
        self.kinds = dict(kinds or {})
        self.root = root
        self.modalities: tuple[str, ...] = ()
        self.table: Table | None = None

    def fit(self, rows: Any, matrix: bool) -> "Inputs":
        """Learns from what `as_rows` returned for the training rows.

        Args:
            rows: DataFrame, or dict of modality to array.
            matrix: bool. Whether X was a matrix, without names.

        Raises:
            ValueError: If columns and rows do not fit together.
        """
        if isinstance(rows, dict):
            self._check_arrays(rows)
            names = self.columns or [n for n in rows if n != "presence"]
            self.modalities = tuple(names)
            return self
        if self.columns is not None:
            given = {
                name: _columns(name, value, rows)
                for name, value in self.columns.items()
            }
            self.table = Table(given, kinds=self.kinds, root=self.root)
        elif matrix:
            given = {_ALONE: list(rows.columns)}
            self.table = Table(given, kinds=self.kinds, root=self.root)
        else:
            # The kinds of columns are as given, or as they look.
            found, kinds = modalities_of(rows, None, {}, set())
            plain = {c for v in found.values() for c in _plain(v)}
            kinds = {
                c: k for c, k in (kinds | self.kinds).items() if c in plain
            }
            self.table = Table(found, kinds=kinds, root=self.root)
        self.table.adapt(rows, verbose=0)
        self.modalities = self.table.modalities
        return self

    def _check_arrays(self, x: Mapping[str, Any]) -> None:
        for name, value in x.items():
            if value is None and name != "presence":
                raise ValueError(
                    f"X[{name!r}] is None: leave the modality out, or give "
                    "some rows that have it."
                )
        for name in self.columns or ():
            if name not in x:
                raise ValueError(
                    f"X holds arrays by modality, and none for {name!r}. "
                    f"Received: {list(x)}"
                )

    def of(self, rows: Any) -> dict[str, Any]:
        """Returns the inputs of a model.

        Args:
            rows: What `as_rows` returned.

        Returns:
            dict of modality to array; `"presence"` is an array, and there if
            a row lacks a modality.

        Raises:
            ValueError: If rows are not like the training rows.
        """
        if self.table is not None:
            if isinstance(rows, dict):
                raise ValueError(
                    "The estimator was fitted on a table, and X holds arrays: "
                    f"{list(rows)}"
                )
            x = self.table.inputs(rows)
        elif not isinstance(rows, dict):
            raise ValueError(
                "The estimator was fitted on a dict of arrays "
                f"({', '.join(self.modalities)}), and X is a table."
            )
        else:
            x = self._of_arrays(rows)
        if x.get("presence") is not None:
            x["presence"] = stack_presence(self.modalities, x["presence"])
        return x

    def _of_arrays(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        unknown = set(rows) - {*self.modalities, "presence"}
        if unknown:
            raise ValueError(
                f"X holds {sorted(unknown)}, which the estimator was not "
                f"fitted on. It knows {list(self.modalities)}."
            )
        x = {name: rows.get(name) for name in self.modalities}
        given = {name: value for name, value in x.items() if value is not None}
        if not given:
            raise ValueError(
                f"X holds none of the modalities {list(self.modalities)}."
            )
        parts = {
            n: dict(enumerate(v)) if isinstance(v, list | tuple) else v
            for n, v in given.items()
        }
        presence = stack_presence(self.modalities, presence_of(parts))
        for index, name in enumerate(self.modalities):
            if name not in given:
                presence[:, index] = False
        if rows.get("presence") is not None:
            told = {**given, "presence": rows["presence"]}
            told["presence"] = stack_presence(self.modalities, told["presence"])
            presence &= full_presence(self.modalities, told)
        nothing = ~presence.any(axis=1)
        if nothing.any():
            raise ValueError(
                f"Row {int(nothing.argmax())} has none of the modalities "
                f"{', '.join(self.modalities)}. {int(nothing.sum())} of "
                f"{len(presence)} rows are like that: drop them."
            )
        for index, name in enumerate(self.modalities):
            there = presence[:, index]
            if name in given and not there.all():
                x[name] = keras.tree.map_structure(_blank(there), x[name])
        return x if presence.all() else {**x, "presence": presence}


def _blank(there: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that sets absent rows to zero, in a copy."""

    def blank(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[~there] = 0
        return array

    return blank


def _plain(columns: Any) -> tuple[str, ...]:
    if isinstance(columns, Field):
        return ()
    return (columns,) if isinstance(columns, str) else tuple(columns)


def _columns(modality: str, value: Any, frame: Any) -> Any:
    """Returns what `Table` takes, for names, positions or a selector."""
    if isinstance(value, Field):
        return value
    if callable(value):  # As `sklearn.compose.make_column_selector` returns.
        value = value(frame)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        value = [value]
    if isinstance(value, slice):
        value = list(frame.columns[value])
    if isinstance(value, str):
        return value
    names = list(frame.columns)
    mask = np.asarray(value)
    if mask.dtype == bool and mask.shape == (len(names),):
        value = np.flatnonzero(mask)
    try:
        return [c if isinstance(c, str) else names[c] for c in value]
    except (IndexError, TypeError):
        raise ValueError(
            f"Modality {modality!r} must name columns of X, or give their "
            f"positions from 0 to {len(names) - 1}. Received: {value!r}"
        ) from None
