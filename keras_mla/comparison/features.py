"""Features of a table's column, in place of what an encoder would read."""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from keras_mla.datasets.pipeline import Reader
from keras_mla.datasets.table import Table
from keras_mla.datasets.table.field import Field
from keras_mla.datasets.table.values import value_of

BATCH_SIZE = 32
# Of files of more than two parts, both ends are a fingerprint.
_PART_BYTES = 1 << 23


class Features(Field):
    """Features of a column, in place of what an encoder would read.

    Args:
        field: The field that reads the column.
        frame: All rows.
        encoder: The frozen encoder.
        table: The table that the field is of.
        keep: Function of an encoder, inputs and their fingerprint to features.
    """

    kind = "features"

    def __init__(
        self,
        field: Field,
        frame: Any,
        encoder: keras.Model,
        table: Table,
        keep: Callable[[keras.Model, Any, str], np.ndarray],
    ) -> None:
        super().__init__(field.columns)
        self.learned = {}
        self._field = field
        rows = _with_source(frame[field.present(frame)], frame)
        settings = json.dumps(field.get_config(), default=str)
        one = Table({"x": field}, root=table.root)
        content = digest(settings, *prints(rows, one))
        self._values = keep(encoder, _Reading(one, rows), content)
        self._position = {index: i for i, index in enumerate(rows.index)}

    def present(self, frame: Any) -> np.ndarray:
        """Returns which rows have the modality."""
        return self._field.present(frame)

    def values(
        self, frame: Any, present: np.ndarray, root: str | None
    ) -> np.ndarray:
        """Returns features `(rows, width)`; zeros where there are none."""
        out: np.ndarray = np.zeros((len(frame), *self.shape), "float32")
        at = [self._position[index] for index in frame.index[present]]
        out[present] = self._values[at]
        return out

    def reader(self, modality: str) -> Reader:
        """Returns the reader of features."""
        return Reader(
            functools.partial(value_of, modality), "float32", self.shape
        )

    @property
    def shape(self) -> tuple[int]:
        """Shape of a sample's features."""
        return (self._values.shape[1],)


class _Reading(keras.utils.PyDataset):
    """Rows of one modality, decoded a batch at a time."""

    def __init__(self, table: Table, rows: Any) -> None:
        super().__init__()
        self.table = table.adapt(rows, verbose=0)
        self.rows = rows

    def __len__(self) -> int:
        return -(-len(self.rows) // BATCH_SIZE)

    def __getitem__(self, index: int) -> Any:
        start = index * BATCH_SIZE
        part = self.rows.iloc[start : start + BATCH_SIZE]
        return self.table.inputs(_with_source(part, self.rows))["x"]


def _with_source(rows: Any, frame: Any) -> Any:
    """Returns rows that know the file, and so the folder, of their frame."""
    rows.attrs.update(frame.attrs)
    return rows


def prints(frame: Any, table: Table) -> list[bytes]:
    """Returns a fingerprint of what each row holds, files included.

    All are of one length: joined, no two frames of as many rows are alike.
    """
    import pandas as pd

    found = [b""] * len(frame)
    fields = table.fields.values()
    cells = [c for f in fields if f.in_memory for c in f.columns]
    if cells:
        texts = frame[cells].astype(str)
        hashes = pd.util.hash_pandas_object(texts, index=False)
        found = [value.tobytes() for value in hashes.to_numpy()]
    for field in fields:
        if field.in_memory:
            continue
        present, root = field.present(frame), table.folder_of(frame)
        for row, paths in enumerate(field.values(frame, present, root)):
            given = paths if isinstance(paths, list) else [paths or ""]
            found[row] += _joined(map(_of_file, given))
    return found


def _of_file(path: str) -> bytes:
    if os.path.isdir(path):  # A video's frames.
        found = []
        for name in sorted(os.listdir(path)):
            # Names say in which order frames are.
            found += [os.fsencode(name), _of_file(os.path.join(path, name))]
        return _joined(found)
    try:
        known = os.stat(path)
        # A program may set back the time of the content, but not the other.
        times = known.st_mtime_ns, known.st_ctime_ns
        return _of_content(path, known.st_size, times)
    except OSError:  # An empty cell, or a file that reading complains of.
        return os.fsencode(path)


def _joined(parts: Iterable[bytes]) -> bytes:
    """Returns a fingerprint of parts, and of where each begins."""
    seen = hashlib.blake2b(digest_size=16)
    for part in parts:
        seen.update(len(part).to_bytes(8, "little") + part)
    return seen.digest()


@functools.lru_cache(maxsize=1_000_000)
def _of_content(path: str, size: int, times: tuple[int, int]) -> bytes:
    seen = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
    with open(path, "rb") as file:
        seen.update(file.read(_PART_BYTES))
        if size > _PART_BYTES:
            file.seek(max(size - _PART_BYTES, _PART_BYTES))
            seen.update(file.read(_PART_BYTES))
    return seen.digest()


def digest(*parts: Any) -> str:
    """Returns a fingerprint of texts and bytes."""
    seen = hashlib.blake2b(digest_size=8)
    for part in parts:
        seen.update(part.encode() if isinstance(part, str) else part)
    return seen.hexdigest()
