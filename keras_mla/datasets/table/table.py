"""A table's rows, as the inputs and labels of a model."""

import copy
import json
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_mla.datasets import pipeline
from keras_mla.datasets.table import cells
from keras_mla.datasets.table.field import NOT_ADAPTED, Field
from keras_mla.datasets.table.guess import FIELDS, guess_field
from keras_mla.datasets.table.label import Label
from keras_mla.datasets.table.rows import Rows

# Beyond that, arrays of decoded files are refused.
_MOST_BYTES = 4 << 30


@keras.saving.register_keras_serializable("keras_mla")
class Table(Rows):
    """Turns rows of a table into a model's inputs, presence and labels.

    A modality is one or several columns of numbers, categories or texts, or a
    column of paths of pictures, sounds or videos. Where all its cells are
    empty, the row lacks the modality. `adapt` learns from the training rows
    alone: scales, categories, vocabularies and classes, as plain JSON. All
    backends get equal arrays, and no TensorFlow is needed.

    Pass the table to a model (`keras_mla.MLA(..., table=table)`): the model
    saves and loads it, as `model.table`.

    Args:
        modalities: dict of modality name to the name of a column, a list of
            names, or a `Values`, `Text`, `Image`, `Sound` or `Video` of
            `keras_mla.datasets.table`. Its order is the model's order.
        label: str, list of str or `Label`. The column of labels. Defaults to
            no labels.
        id: str. A column that names each row, for messages. No two rows may
            have one name. Defaults to no column.
        kinds: dict of column to `"number"`, `"category"`, `"text"`,
            `"image"`, `"sound"` or `"video"`. Defaults to what the column's
            training rows look like; `summary` tells.
        root: str or path. The folder that paths in the table are relative to,
            and that no path may leave. It is not saved. Defaults to the folder
            of the file that the rows were read from.

    Attributes:
        modalities: tuple of names.
        fields: dict of modality name to `Values`, `Text`, `Image`, `Sound` or
            `Video`, once adapted.
        label: `Label`, or `None`.

    Example:
    >>> rows = {
    ...     "title": ["red shoes", "blue shirt", "red shirt", None] * 5,
    ...     "price": [20.0, 15.0, None, 9.0] * 5,
    ...     "kind": ["shoes", "shirt", "shirt", "shoes"] * 5,
    ... }
    >>> table = keras_mla.datasets.Table(
    ...     {"text": "title", "facts": "price"},
    ...     label="kind",
    ...     kinds={"title": "text"},
    ... )
    >>> parts = table.split(rows, {"train": 0.8, "test": 0.2})
    >>> _ = table.adapt(parts["train"])
    Table of 16 rows
      text: 2 tokens of 272 (title), absent in 25 %
      facts: a vector of 2 (price: number), absent in 25 %
      label: kind: 2 classes (str), single_label
    >>> x, y = table.arrays(parts["test"])
    >>> y.shape, x["facts"].shape, sorted(x["presence"])
    ((4,), (4, 2), ['facts', 'text'])
    >>> table.decode_predictions([[0.2, -0.1]])
    ['shirt']
    """

    # === Learning ===

    def adapt(self, rows: Any, verbose: int = 1) -> "Table":
        """Learns what the table needs to know, from training rows alone.

        Args:
            rows: DataFrame, path of a table, list of dicts or dict of lists.
            verbose: int. `1` prints `summary`. Defaults to `1`.

        Returns:
            The table itself.

        Raises:
            ValueError: If a column is missing or empty, or holds what it
                should not.
        """
        frame = self._frame(rows, labels=True)
        # An error leaves the table as it was.
        fields = {
            name: copy.deepcopy(self.fields.get(name, given))
            if isinstance(given, Field)
            else guess_field(frame, name, given, self.kinds)
            for name, given in self._given.items()
        }
        label = copy.deepcopy(self.label)
        for field in fields.values():
            field.adapt(frame)
        if label is not None:
            label.adapt(frame)
        self.fields, self.label = fields, label
        if verbose:
            absent = {
                name: 1 - field.present(frame).mean()
                for name, field in fields.items()
            }
            print(f"Table of {len(frame):,} rows")
            print("\n".join(self._lines(absent)))
        return self

    def summary(self) -> None:
        """Prints what each modality and the label are."""
        print("Table")
        print("\n".join(self._lines({})))

    def _lines(self, absent: Mapping[str, float]) -> list[str]:
        lines = []
        for name, field in self._adapted().items():
            share = absent.get(name, 0.0)
            told = f", absent in {100 * share:.3g} %" if share else ""
            lines.append(f"  {name}: {field.describe()}{told}")
        if self.label is not None:
            lines.append(f"  label: {self.label.describe()}")
        return lines

    @property
    def _is_adapted(self) -> bool:
        return len(self.fields) == len(self.modalities)

    def _adapted(self) -> dict[str, Field]:
        if not self._is_adapted:
            raise ValueError(NOT_ADAPTED)
        return self.fields

    # === Arrays ===

    def inputs(
        self, rows: Any, on_error: str = "raise", workers: int | None = None
    ) -> dict[str, Any]:
        """Returns the model's inputs as arrays.

        Args:
            rows: DataFrame, path of a table, list of dicts or dict of lists.
                They need no label. In a list of dicts, a missing key is an
                empty cell.
            on_error: `"raise"`, or `"absent"`: a file that is missing or
                cannot be decoded is an absent modality, and a warning of the
                logger `keras_mla`. Defaults to `"raise"`.
            workers: int. Number of files decoded at the same time.

        Returns:
            dict of modality name to array, or dict of arrays. If a row lacks
            a modality, it holds `"presence"`: a dict of modality name to bool
            array `(rows,)`. Values of absent modalities are zero or padding.

        Raises:
            ValueError: If a column is missing, a cell is wrong, a row has no
                modality, or pictures, sounds and videos take more than 4 GiB:
                `batches` reads them one batch at a time.
        """
        return self._inputs(self._frame(rows, False), on_error, workers)

    def _inputs(
        self, frame: Any, on_error: str, workers: int | None
    ) -> dict[str, Any]:
        if on_error not in ("raise", "absent"):
            raise ValueError(
                "`on_error` must be 'raise' or 'absent': arrays have all rows. "
                f"Received: on_error={on_error!r}"
            )
        fields = self._adapted()
        presence = self._presence(frame)
        x: dict[str, Any] = {}
        files = {n: f for n, f in fields.items() if not f.in_memory}
        read = {}
        if files:
            read = self._read_files(frame, files, presence, on_error, workers)
        for name, field in fields.items():
            if name in files:
                x[name] = read[name]
                continue
            values = field.values(frame, presence[name], None)
            batched = field.reader(name).batched
            x[name] = values if batched is None else batched(values)
        if read:
            self._check_present(frame, presence)
        if not all(mask.all() for mask in presence.values()):
            x["presence"] = presence
        return x

    def presence(self, rows: Any) -> dict[str, np.ndarray]:
        """Returns which rows have each modality, by what their cells say.

        Args:
            rows: DataFrame, path of a table, list of dicts or dict of lists.

        Returns:
            dict of modality name to bool array `(rows,)`.

        Raises:
            ValueError: If a row has no modality.
        """
        return self._presence(self._frame(rows, labels=False))

    def _presence(self, frame: Any) -> dict[str, np.ndarray]:
        presence = {n: f.present(frame) for n, f in self._adapted().items()}
        self._check_present(frame, presence)
        return presence

    def _check_present(
        self, frame: Any, presence: Mapping[str, np.ndarray]
    ) -> None:
        nothing = ~np.logical_or.reduce(list(presence.values()))
        if nothing.any():
            raise ValueError(
                f"{cells.place(frame, int(nothing.argmax()))}: the row has "
                f"none of the modalities {', '.join(self.modalities)}, so "
                "there is nothing to learn or to predict from. "
                f"{int(nothing.sum())} of {len(frame)} rows are like that: "
                "drop them."
            )

    def _read_files(
        self,
        frame: Any,
        files: Mapping[str, Field],
        presence: dict[str, np.ndarray],
        on_error: str,
        workers: int | None,
    ) -> dict[str, np.ndarray]:
        """Reads all files; marks as absent those that cannot be decoded."""
        arrays = {}
        size = sum(4 * int(np.prod(f.shape)) for f in files.values())
        if size * len(frame) > _MOST_BYTES:
            raise ValueError(
                f"The files of {len(frame):,} rows take "
                f"{size * len(frame) / 2**30:.1f} GiB once they are decoded. "
                "`table.batches(rows)` reads one batch at a time."
            )
        data = pipeline.build(
            self._samples(frame, files, presence, None),
            {name: field.reader(name) for name, field in files.items()},
            on_error=on_error,
            workers=workers,
            engine="python",
        )
        start = 0
        for batch, labels in data:
            stop = start + len(labels)
            for name in files:
                if name not in arrays:
                    shape = (len(frame), *batch[name].shape[1:])
                    arrays[name] = np.zeros(shape, batch[name].dtype)
                arrays[name][start:stop] = batch[name]
                if "presence" in batch:
                    presence[name][start:stop] &= batch["presence"][name]
            start = stop
        for name, array in arrays.items():
            array[~presence[name]] = 0
        return arrays

    def _samples(
        self,
        frame: Any,
        fields: Mapping[str, Field],
        presence: Mapping[str, np.ndarray],
        labels: Any,
    ) -> list[pipeline.Sample]:
        """Returns a sample for each row, with what it has."""
        root = self.folder_of(frame)
        values = {
            name: field.values(frame, presence[name], root)
            for name, field in fields.items()
        }
        names: Any = frame.index
        if self.id is not None and self.id in frame.columns:
            names = cells.words_of(frame[self.id])
        elif not frame.index.is_unique:
            names = range(len(frame))
        return [
            pipeline.Sample(
                str(names[row]),
                0 if labels is None else labels[row],
                {n: values[n][row] for n in fields if presence[n][row]},
                cells.place(frame, row),
            )
            for row in range(len(frame))
        ]

    def folder_of(self, frame: Any) -> str | None:
        """Returns the folder that paths of a DataFrame are relative to.

        Args:
            frame: DataFrame, perhaps from `read_table`.
        """
        if self.root is not None:
            return os.path.abspath(os.path.expanduser(self.root))
        source = frame.attrs.get("source")
        return None if source is None else os.path.dirname(source)

    def labels(self, rows: Any) -> np.ndarray:
        """Returns the labels of rows.

        Args:
            rows: DataFrame, path of a table, list of dicts or dict of lists.

        Returns:
            int32 `(rows,)` of classes; float32 `(rows, labels)`; or float32
            `(rows,)` or `(rows, columns)` of numbers.

        Raises:
            ValueError: If the table has no label, or a label is empty or not
                one of the training rows' classes.
        """
        return self._known_label().values(self._frame(rows, labels=True))

    def arrays(
        self, rows: Any, on_error: str = "raise", workers: int | None = None
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Returns `(inputs, labels)` as arrays, see `inputs` and `labels`.

        Args:
            rows: DataFrame, path of a table, list of dicts or dict of lists.
            on_error: `"raise"` or `"absent"`, see `inputs`. Defaults to
                `"raise"`.
            workers: int. Number of files decoded at the same time. Defaults
                to the number of CPU cores, at most 8.
        """
        frame = self._frame(rows, labels=True)
        y = self._known_label().values(frame)
        return self._inputs(frame, on_error, workers), y

    def batches(self, rows: Any, *, labels: bool = True, **options: Any) -> Any:
        """Returns rows as batches, which decode files as they are needed.

        Args:
            rows: DataFrame, path of a table, list of dicts or dict of lists.
            labels: bool. Whether rows have labels. If not, labels are zeros.
                Defaults to `True`, if the table has a label.
            **options: `batch_size`, `training`, `shuffle`, `augment`, `seed`,
                `workers`, `cache_dir`, `on_error`, `presence`, `sample_ids`,
                `engine` and `use_multiprocessing` of `pipeline.build`.

        Returns:
            What `pipeline.build` returns: batches of `(inputs, labels)`, the
            inputs with `"presence"` by name where a row lacks a modality.
            Values of absent modalities may be anything.

        Raises:
            ValueError: See `inputs` and `pipeline.build`.
        """
        fields = self._adapted()
        labels = labels and self.label is not None
        frame = self._frame(rows, labels)
        presence = self._presence(frame)
        y = self._known_label().values(frame) if labels else None
        return pipeline.build(
            self._samples(frame, fields, presence, y),
            {name: field.reader(name) for name, field in fields.items()},
            **options,
        )

    # === Labels and predictions ===

    def _known_label(self) -> Label:
        if self.label is None:
            raise ValueError("The table has no label: give `Table` a `label`.")
        return self.label

    @property
    def task(self) -> str:
        """`"single_label"`, `"multi_label"` or `"regression"`."""
        return self._known_label().known()["task"]

    @property
    def classes(self) -> list[Any] | None:
        """Classes or labels in the order of outputs; `None` for numbers."""
        return self._known_label().known()["classes"]

    @property
    def units(self) -> int:
        """Number of outputs that a model needs: its `head`."""
        return self._known_label().units

    @property
    def shapes(self) -> dict[str, Any]:
        """Shape of a sample of each modality, or a dict of shapes."""
        return {name: field.shape for name, field in self._adapted().items()}

    def decode_predictions(self, outputs: Any) -> Any:
        """Returns what a model's outputs mean.

        Args:
            outputs: float array `(rows, units)`, as `model.predict` returns.

        Returns:
            A list of a class for each row; a list of the labels of each row,
            those with a positive logit; or a float array of numbers.
        """
        return self._known_label().decode(outputs)

    # === Saving ===

    def get_config(self) -> dict[str, Any]:
        """Returns arguments, and what was learned, as JSON has them."""
        given: dict[str, Any] = {}
        for name, value in {**self._given, **self.fields}.items():
            given[name] = (
                {"kind": value.kind, "config": value.get_config()}
                if isinstance(value, Field)
                else {"kind": None, "config": {"columns": list(value)}}
            )
        return {
            "modalities": given,
            "label": None if self.label is None else self.label.get_config(),
            "id": self.id,
            "kinds": {} if self._is_adapted else self.kinds,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Table":
        """Makes a table of its config.

        Args:
            config: dict, as `get_config` returns it.

        Returns:
            The table.

        Raises:
            ValueError: If the config is not that of a table.
        """
        try:
            modalities = {
                name: FIELDS[value["kind"]].from_config(value["config"])
                if value["kind"] is not None
                else value["config"]["columns"]
                for name, value in config["modalities"].items()
            }
            label = config["label"]
            return cls(
                modalities,
                None if label is None else Label.from_config(label),
                id=config["id"],
                kinds=config["kinds"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"The config is not that of a table: {error!r}"
            ) from error

    def save(self, path: str | os.PathLike) -> None:
        """Writes the table to a JSON file.

        Args:
            path: str or path. The file, replaced if it is there.
        """
        part = f"{os.fspath(path)}.part"
        with open(part, "w", encoding="utf-8") as file:
            json.dump(self.get_config(), file, indent=1)
        os.replace(part, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Table":
        """Reads a table that `save` has written.

        Args:
            path: str or path. The file.

        Returns:
            The table.

        Raises:
            ValueError: If the file holds no table.
        """
        with open(path, encoding="utf-8") as file:
            try:
                config = json.load(file)
            except ValueError as error:
                raise ValueError(f"{path} holds no table: {error}") from error
        return cls.from_config(config)
