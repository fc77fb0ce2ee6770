"""The columns of a table, its rows as users pass them, and their splits."""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mla.datasets.table import cells, splits
from keras_mla.datasets.table.field import Field, as_columns
from keras_mla.datasets.table.guess import COLUMN_KINDS
from keras_mla.datasets.table.label import Label
from keras_mla.datasets.table.read import as_frame

_FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}


class Rows:
    """The part of a table that checks and divides rows. See `Table`."""

    def __init__(
        self,
        modalities: Mapping[str, Any],
        label: str | Sequence[str] | Label | None = None,
        *,
        id: str | None = None,
        kinds: Mapping[str, str] | None = None,
        root: str | os.PathLike | None = None,
    ) -> None:
        if (
            not isinstance(modalities, Mapping)
            or not modalities
            or not all(isinstance(name, str) for name in modalities)
        ):
            raise ValueError(
                "`modalities` must be a dict of modality name to columns. "
                f"Received: {modalities!r}"
            )
        # What columns become is known from the start, or guessed by `adapt`.
        self._given: dict[str, Field | tuple[str, ...]] = {
            name: copy.deepcopy(value)
            if isinstance(value, Field)
            else as_columns(value)
            for name, value in modalities.items()
        }
        self.modalities = tuple(modalities)
        self.fields: dict[str, Field] = {
            name: value
            for name, value in self._given.items()
            if isinstance(value, Field)
        }
        self.label: Label | None = None
        if isinstance(label, Label):
            self.label = copy.deepcopy(label)
        elif label is not None:
            self.label = Label(label)
        self.id = id
        self.kinds = dict(kinds or {})
        self.root = None if root is None else os.fspath(root)
        self._check_arguments()

    def _check_arguments(self) -> None:
        if "presence" in self.modalities:
            raise ValueError(
                "'presence' cannot be a modality: the inputs hold the presence "
                "of all modalities under this name."
            )
        if self.id is not None and not isinstance(self.id, str):
            raise ValueError(
                f"`id` must be the name of a column. Received: id={self.id!r}"
            )
        plain = [
            column
            for value in self._given.values()
            if not isinstance(value, Field)
            for column in value
        ]
        wrong = {
            column: kind
            for column, kind in self.kinds.items()
            if column not in plain or kind not in COLUMN_KINDS
        }
        if wrong:
            raise ValueError(
                f"`kinds` must map columns of modalities ({', '.join(plain)}) "
                f"to one of {list(COLUMN_KINDS)}. Received: {wrong}"
            )
        used = {
            c: name for name in self.modalities for c in self._columns(name)
        }
        for column in self.label.columns if self.label else ():
            if column in used:
                raise ValueError(
                    f"The column {column!r} is the label and a part of the "
                    f"modality {used[column]!r}: a model would read the answer."
                )

    def _columns(self, modality: str) -> tuple[str, ...]:
        given = self._given[modality]
        return given.columns if isinstance(given, Field) else given

    # === Rows ===

    def _frame(self, rows: Any, labels: bool) -> Any:
        """Returns rows as a DataFrame that has all columns and distinct ids."""
        columns = {
            column: f"the modality {name!r}"
            for name in self.modalities
            for column in self._columns(name)
        }
        frame = as_frame(rows, list(columns))
        if labels and self.label is not None:
            columns |= dict.fromkeys(self.label.columns, "the label")
        if labels and self.id is not None:
            columns[self.id] = "the id"
        for column, what in columns.items():
            cells.check_columns(frame, [column], what)
        if labels and self.id is not None:
            self._check_ids(frame)
        return frame

    def _check_ids(self, frame: Any) -> None:
        words = cells.words_of(frame[self.id])
        first: dict[str, int] = {}
        for row, word in enumerate(words):
            if not word:
                raise ValueError(
                    f"{cells.place(frame, row, str(self.id))}: the id is empty."
                )
            if word in first:
                raise ValueError(
                    f"{cells.place(frame, row, str(self.id))}: the id {word!r} "
                    f"is that of {cells.place(frame, first[word])} as well."
                )
            first[word] = row

    def split(
        self,
        rows: Any,
        fractions: Mapping[str, float] | None = None,
        *,
        column: str | None = None,
        group: str | None = None,
        stratify: bool = True,
        missing_classes: bool = False,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Divides rows into splits.

        Args:
            rows: DataFrame, path of a table, list of dicts or dict of lists.
            fractions: dict of split to share of rows. Defaults to 0.8, 0.1
                and 0.1 for `"train"`, `"validation"` and `"test"`.
            column: str. A column that names each row's split, in place of
                `fractions`. `"val"`, `"valid"` and `"dev"` are
                `"validation"`.
            group: str. A column of groups, such as persons. No group comes
                into two splits; the shares are then of groups.
            stratify: bool. Whether classes are equally frequent in all splits.
                It is for one class a row, without groups. Defaults to `True`.
            missing_classes: bool. Whether a split may lack classes. Defaults
                to `False`.
            seed: int. The same seed gives the same splits. Defaults to `0`.

        Returns:
            dict of split to DataFrame. Rows keep their index and their order.

        Raises:
            ValueError: If a column is missing, two rows have one id, a group
                is in two splits, or a split lacks a class.
        """
        frame = self._frame(rows, labels=True)
        classes = self._classes_of(frame)
        groups = self._groups_of(frame, group)
        if column is not None:
            if fractions is not None:
                raise ValueError("Give `fractions` or `column`, not both.")
            cells.check_columns(frame, [column], "the split")
            parts = splits.by_column(frame, column)
            if groups is not None:
                splits.check_groups(frame, parts, groups, str(group))
        else:
            parts = splits.at_random(
                len(frame),
                fractions or _FRACTIONS,
                classes if stratify else None,
                groups,
                seed,
            )
        if classes is not None and self.label and not missing_classes:
            splits.check_classes(parts, classes, self.label.columns[0])
        return {name: frame.iloc[rows] for name, rows in parts.items()}

    def folds(
        self,
        rows: Any,
        count: int = 5,
        *,
        group: str | None = None,
        stratify: bool = True,
        seed: int = 0,
    ) -> list[tuple[Any, Any]]:
        """Divides rows into folds, for cross-validation.

        Args:
            rows: DataFrame, path of a table, list of dicts or dict of lists.
            count: int. Number of folds. Defaults to `5`.
            group: str. A column of groups. No group comes into two folds.
            stratify: bool. Whether classes are equally frequent in all folds,
                as far as groups permit. Defaults to `True`.
            seed: int. The same seed gives the same folds. Defaults to `0`.

        Returns:
            list of pairs of DataFrames: training and validation rows.

        Raises:
            ValueError: If a column is missing, there are too few rows, classes
                or groups, or the training rows of a fold lack a class.
        """
        frame = self._frame(rows, labels=True)
        classes = self._classes_of(frame)
        found = splits.in_folds(
            len(frame),
            count,
            classes if stratify else None,
            self._groups_of(frame, group),
            seed,
        )
        if classes is not None:
            splits.check_folds(found, classes)
        return [(frame.iloc[train], frame.iloc[held]) for train, held in found]

    def _classes_of(self, frame: Any) -> np.ndarray | None:
        """Returns the class of each row, if each row has one class."""
        if self.label is None or self.label.guess(frame)[0] != "single_label":
            return None
        return self.label.words(frame)

    def _groups_of(self, frame: Any, group: str | None) -> np.ndarray | None:
        if group is None:
            return None
        cells.check_columns(frame, [group], "the group")
        words = cells.names_of(frame[group])
        if (words == "").any():
            where = cells.place(frame, int((words == "").argmax()), group)
            raise ValueError(f"{where}: the group is empty.")
        return words
