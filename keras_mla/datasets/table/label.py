"""The labels of a table: classes, several labels, or numbers."""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mla.datasets.table import cells
from keras_mla.datasets.table.field import Learned

TASKS = ("single_label", "multi_label", "regression")
_SEPARATORS = "|;"
_MOST_CLASSES = 1000


class Label(Learned):
    """What a table's rows are labelled with.

    Strings, integers and booleans are classes (`"single_label"`); floats are
    numbers (`"regression"`); strings of which some hold `|` or `;` are several
    labels in a cell (`"multi_label"`). Several columns are several labels if
    they hold 0 and 1, else several numbers.

    Args:
        columns: str or sequence of str. Names of columns.
        task: `"single_label"`, `"multi_label"` or `"regression"`, in place of
            the guess; or `"auto"`. Defaults to `"auto"`.
        separator: str. What separates the labels in a cell. An empty cell then
            has none of the labels. Without it, an empty cell is an error.
        classes: Sequence of the classes or labels, in the order of the model's
            outputs. Defaults to those of the training rows, sorted.

    Attributes:
        learned: dict of `"task"`, `"classes"` (`None` for numbers) and
            `"separator"`; or `None` before `adapt`.

    Raises:
        ValueError: If `columns` has no name or a name twice; if `task` is
            unknown; if `separator` or `classes` is empty, or `classes` is a
            string; or if one of them, or several columns, does not go with
            the other arguments.

    Example:
    >>> from keras_mla.datasets import table
    >>> label = table.Label("genres", separator="|")
    >>> t = table.Table({"year": "year"}, label)
    >>> rows = {"year": [1990, 1994], "genres": ["comedy|drama", "drama"]}
    >>> t.adapt(rows, verbose=0).labels(rows)
    array([[1., 1.],
           [0., 1.]], dtype=float32)
    >>> t.decode_predictions([[-1.0, 2.0]])
    [['drama']]
    """

    def __init__(
        self,
        columns: str | Sequence[str],
        task: str = "auto",
        separator: str | None = None,
        classes: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(columns)
        if task not in ("auto", *TASKS):
            raise ValueError(
                f"`task` must be 'auto' or one of {list(TASKS)}. "
                f"Received: task={task!r}"
            )
        if separator is not None and (
            not separator or len(self.columns) > 1 or task not in _SEPARABLE
        ):
            raise ValueError(
                "`separator` is for several labels in the cells of one column. "
                f"Received: separator={separator!r}, "
                f"columns={list(self.columns)}, task={task!r}"
            )
        if len(self.columns) > 1 and task == "single_label":
            raise ValueError(
                "One class for each row is in one column. "
                f"Received: columns={list(self.columns)}"
            )
        if classes is not None and (
            isinstance(classes, str)
            or not len(classes)
            or len(self.columns) > 1
            or task == "regression"
        ):
            raise ValueError(
                "`classes` must be a list of the classes, or the labels, in "
                f"the cells of one column. Received: classes={classes!r}, "
                f"columns={list(self.columns)}, task={task!r}"
            )
        self.task = task
        self.separator = separator
        self.classes = None if classes is None else list(map(_plain, classes))

    # === Learning ===

    def guess(self, frame: Any) -> tuple[str, str | None]:
        """Returns the task of rows, and what separates labels in a cell.

        Args:
            frame: DataFrame.

        Raises:
            ValueError: If integers look neither like classes nor like numbers.
        """
        if self.separator is not None:
            return "multi_label", self.separator
        if len(self.columns) > 1:
            return self._guess_of_several(frame), None
        series = frame[self.columns[0]]
        separator = None
        if self.task in _SEPARABLE and not cells.is_number(series):
            separator = _separator_of(cells.words_of(series))
        if self.task == "multi_label" and separator is None:
            raise ValueError(
                f"No cell of the column {self.columns[0]!r} holds several "
                "labels: say what separates them, with `separator=`."
            )
        if self.task != "auto":
            return self.task, separator
        if separator is not None:
            return "multi_label", separator
        if (
            self.classes is not None
            or not cells.is_number(series)
            or series.dtype.kind == "b"
        ):
            return "single_label", None
        if series.dtype.kind not in "iu":
            return "regression", None
        different = int(series.nunique())
        if different > max(_MOST_CLASSES, len(series) / 2):
            raise ValueError(
                f"Column {self.columns[0]!r} holds {different:,} different "
                "integers: are they classes or numbers? Say "
                "`table.Label(column, task='single_label')` or "
                "`task='regression'`."
            )
        return "single_label", None

    def _guess_of_several(self, frame: Any) -> str:
        if self.task != "auto":
            return self.task
        numbers = [cells.numbers_of(frame, c) for c in self.columns]
        binary = all(np.isin(n, (0.0, 1.0)).all() for n in numbers)
        return "multi_label" if binary else "regression"

    def adapt(self, frame: Any) -> None:
        """Learns the task and the classes from rows.

        Raises:
            ValueError: If a label is empty, or there is one class only, or
                no label at all.
        """
        task, separator = self.guess(frame)
        self.learned = {"task": task, "separator": separator, "classes": None}
        if task == "regression":
            self.values(frame)
            return
        if len(self.columns) > 1:
            classes: list[Any] = list(self.columns)
        else:
            classes = self.classes or self._classes(frame, separator)
        if len(classes) < 2 and task == "single_label":
            raise ValueError(
                f"Column {self.columns[0]!r} holds one class only, {classes}: "
                "there is nothing to learn."
            )
        if not classes:
            raise ValueError(f"Column {self.columns[0]!r} holds no label.")
        if len(set(map(_word, classes))) < len(classes):
            raise ValueError(f"A class is named twice. Received: {classes}")
        self.learned["classes"] = classes
        self.values(frame)

    def _classes(self, frame: Any, separator: str | None) -> list[Any]:
        [column] = self.columns
        words = self.words(frame)
        if separator is not None:
            return sorted(
                {part for word in words for part in _parts(word, separator)}
            )
        series = frame[column]
        if hasattr(series, "cat"):
            series = series.astype(series.cat.categories.dtype)
        if cells.is_number(series):
            return [_plain(value) for value in sorted(series.dropna().unique())]
        return sorted(set(words))

    # === Labels ===

    def values(self, frame: Any) -> np.ndarray:
        """Returns the labels of rows.

        Args:
            frame: DataFrame.

        Returns:
            int32 `(rows,)` of classes; float32 `(rows, labels)` of zeros and
            ones; or float32 `(rows,)`, for several columns `(rows, columns)`,
            of numbers.

        Raises:
            ValueError: If a label is empty, or not one of the classes. With a
                `separator`, an empty cell has none of the labels instead.
        """
        learned = self.known()
        if learned["task"] == "regression" or len(self.columns) > 1:
            found = [self._numbers(frame, c) for c in self.columns]
            both = np.stack(found, axis=1).astype(np.float32)
            if (
                learned["task"] == "multi_label"
                and not np.isin(both, (0, 1)).all()
            ):
                row, column = np.argwhere(~np.isin(both, (0, 1)))[0]
                where = cells.place(frame, int(row), self.columns[column])
                raise ValueError(
                    f"{where}: a label must be 0 or 1. "
                    f"Received: {both[row, column]}"
                )
            return both if len(self.columns) > 1 else both[:, 0]
        words = self.words(frame)
        index = {_word(c): i for i, c in enumerate(learned["classes"])}
        if learned["task"] == "single_label":
            codes = np.array([index.get(word, -1) for word in words], np.int32)
            if (codes < 0).any():
                self._unknown(frame, int((codes < 0).argmax()))
            return codes
        out: np.ndarray = np.zeros((len(words), len(index)), np.float32)
        for row, word in enumerate(words):
            for part in _parts(word, learned["separator"]):
                if part not in index:
                    self._unknown(frame, row)
                out[row, index[part]] = 1.0
        return out

    def _numbers(self, frame: Any, column: str) -> np.ndarray:
        numbers = cells.numbers_of(frame, column)
        if np.isnan(numbers).any():
            self._empty(frame, int(np.isnan(numbers).argmax()), column)
        return numbers

    def words(self, frame: Any) -> np.ndarray:
        """Returns the cells of the one column as words.

        Args:
            frame: DataFrame.

        Raises:
            ValueError: If a cell is empty and there is no `separator`.
        """
        [column] = self.columns
        words = cells.names_of(frame[column])
        if self.separator is None:
            empty = words == ""
            if empty.any():
                self._empty(frame, int(empty.argmax()), column)
        return words

    def _empty(self, frame: Any, row: int, column: str) -> None:
        raise ValueError(
            f"{cells.place(frame, row, column)}: the label is empty. Drop the "
            "rows without a label."
        )

    def _unknown(self, frame: Any, row: int) -> None:
        classes = self.known()["classes"]
        [column] = self.columns
        raise ValueError(
            f"{cells.place(frame, row, column)}: the label is not one of the "
            f"{len(classes)} of the training rows "
            f"({', '.join(map(str, classes[:10]))}"
            f"{', ...' if len(classes) > 10 else ''}). "
            f"Received: {frame[column].iloc[row]!r}"
        )

    # === Predictions ===

    @property
    def units(self) -> int:
        """Number of outputs that a model needs."""
        return len(self.known()["classes"] or self.columns)

    def decode(self, outputs: Any) -> Any:
        """Returns what outputs of a model mean.

        Args:
            outputs: float array `(rows, units)`, logits or numbers.

        Returns:
            A list of a class for each row, or of the labels of each row; or
            float array `(rows,)` or `(rows, columns)`.

        Raises:
            ValueError: If the shape is another one, or outputs hold NaN.
        """
        outputs = np.asarray(outputs)
        if outputs.ndim != 2 or outputs.shape[1] != self.units:
            raise ValueError(
                f"Outputs must have the shape (rows, {self.units}). "
                f"Received: shape {outputs.shape}"
            )
        wrong = np.isnan(outputs).any(axis=1)
        if wrong.any():
            raise ValueError(
                f"Outputs hold NaN in {int(wrong.sum())} rows; the first is "
                f"row {int(wrong.argmax())}."
            )
        learned = self.known()
        classes = learned["classes"]
        if learned["task"] == "regression":
            return outputs if len(self.columns) > 1 else outputs[:, 0]
        if learned["task"] == "single_label":
            return [classes[i] for i in outputs.argmax(axis=1)]
        return [
            [classes[i] for i in np.flatnonzero(row > 0)] for row in outputs
        ]

    def describe(self) -> str:
        """Returns task and classes, in a few words."""
        learned = self.known()
        names = ", ".join(self.columns)
        if learned["classes"] is None:
            return f"{names}: {self.units} number(s), regression"
        what = "classes" if learned["task"] == "single_label" else "labels"
        separated = (
            f" separated by {learned['separator']!r}"
            if learned["separator"]
            else ""
        )
        kind = type(learned["classes"][0]).__name__
        return (
            f"{names}: {self.units} {what} ({kind}){separated}, "
            f"{learned['task']}"
        )

    def get_config(self) -> dict[str, Any]:
        """Returns arguments, and what was learned, as JSON has them."""
        return {
            **super().get_config(),
            "task": self.task,
            "separator": self.separator,
            "classes": self.classes,
        }

    def can_learn(self, learned: dict[str, Any]) -> bool:
        """Returns whether a dict has the form of what `adapt` learns."""
        if (
            learned.keys() != {"task", "separator", "classes"}
            or learned["task"] not in TASKS
            or not isinstance(learned["separator"], str | None)
        ):
            return False
        classes = learned["classes"]
        if learned["task"] == "regression":
            return classes is None
        return (
            isinstance(classes, list)
            and all(isinstance(c, str | int | float) for c in classes)
            and 0 < len(set(map(_word, classes))) == len(classes)
        )


_SEPARABLE = ("auto", "multi_label")


def _separator_of(words: np.ndarray) -> str | None:
    for separator in _SEPARATORS:
        if any(separator in word for word in words):
            return separator
    return None


def _parts(word: str, separator: str) -> list[str]:
    return [part.strip() for part in word.split(separator) if part.strip()]


def _word(value: Any) -> str:
    """Returns a class as `cells.names_of` writes it."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return unicodedata.normalize("NFC", str(value).strip())


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
