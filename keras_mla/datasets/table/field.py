"""The base classes of what a table's columns become."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from keras_mla.datasets.pipeline import Reader
from keras_mla.datasets.table import cells

NOT_ADAPTED = (
    "The table is not adapted: call `table.adapt` on the rows of the training "
    "split first."
)


class Learned:
    """Columns of a table, and what was learned of them.

    Args:
        columns: str or sequence of str. Names of columns.

    Attributes:
        columns: tuple of str.
        learned: dict of what `adapt` learned, as JSON has it; or `None`.
    """

    def __init__(self, columns: str | Sequence[str]) -> None:
        self.columns = as_columns(columns)
        self.learned: dict[str, Any] | None = None

    def adapt(self, frame: Any) -> None:
        """Learns from the rows of a DataFrame."""
        self.learned = {}

    def known(self) -> dict[str, Any]:
        """Returns what was learned.

        Raises:
            ValueError: If nothing was: `adapt` has not been called.
        """
        if self.learned is None:
            raise ValueError(NOT_ADAPTED)
        return self.learned

    def can_learn(self, learned: dict[str, Any]) -> bool:
        """Returns whether a dict has the form of what `adapt` learns."""
        return not learned

    def describe(self) -> str:
        """Returns what the model gets, in a few words."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Returns arguments, and what was learned, as JSON has them."""
        return {"columns": list(self.columns), "learned": self.learned}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Makes an object of its config.

        Raises:
            ValueError: If the config holds what `adapt` cannot have learned.
        """
        config = dict(config)
        learned = config.pop("learned", None)
        made = cls(**config)
        if learned is not None and not (
            isinstance(learned, dict) and made.can_learn(learned)
        ):
            raise ValueError(
                f"The columns {list(made.columns)} cannot have taught this: "
                f"learned={str(learned)[:80]}"
            )
        made.learned = learned
        return made


class Field(Learned):
    """One modality of a table: its columns, and what was learned of them."""

    kind = ""

    def present(self, frame: Any) -> np.ndarray:
        """Returns which rows have a cell that is not empty."""
        return ~np.logical_and.reduce(
            [cells.is_empty(frame[name]) for name in self.columns]
        )

    def values(self, frame: Any, present: np.ndarray, root: str | None) -> Any:
        """Returns a value for each row, as the reader takes them.

        Args:
            frame: DataFrame.
            present: bool array `(rows,)`. What `present` returned.
            root: str. The folder of files, if there is one.
        """
        raise NotImplementedError

    def reader(self, modality: str) -> Reader:
        """Returns the reader of the values."""
        raise NotImplementedError

    @property
    def shape(self) -> Any:
        """Shape of a sample of the model's input, or a dict of shapes."""
        raise NotImplementedError

    @property
    def in_memory(self) -> bool:
        """Whether the values of all rows are an array, not paths."""
        return True


def as_columns(columns: Any) -> tuple[str, ...]:
    """Returns names of columns as a tuple.

    Raises:
        ValueError: If there is none, or one that is no string or named twice.
    """
    names: tuple[Any, ...] = ()
    if isinstance(columns, str):
        names = (columns,)
    elif isinstance(columns, Iterable):
        names = tuple(columns)
    if (
        not names
        or not all(isinstance(name, str) for name in names)
        or len(set(names)) < len(names)
    ):
        raise ValueError(
            "A modality or a label needs the name of a column, or a list of "
            f"different names. Received: {columns!r}"
        )
    return names
