"""The data of a comparison: its splits or folds, labels and modalities."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.comparison.frozen import Frozen
from keras_mla.core.arrays import full_presence
from keras_mla.datasets.table import Table
from keras_mla.encoders.cache import fingerprint
from keras_mla.presence import stack_presence

SPLITS = ("train", "validation", "test")
# Shares of samples where no split is given, and of training samples of a fold.
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
INNER = {"train": 0.8, "validation": 0.2}


@dataclasses.dataclass
class Part:
    """A split.

    Attributes:
        source: dict of arrays, with `"presence"` as a bool array
            `(samples, modalities)`; or batches of `(inputs, labels)`; or a
            function that returns such batches for the seed of a run.
        y: Labels of all samples.
        rows: int array. Positions among all samples of the data.
        shared: bool. Whether `source` holds the arrays of all samples, which
            spares each fold a copy of them. Defaults to `False`.
        there: Bool array `(samples, modalities)`: which modalities the
            samples of a stream have. `None` if only the batches tell.
        hide: Function of such an array that returns a stream like `source`
            with these modalities alone. `None` if there is no such function.
        patterns: dict of a name to such an array, a test split's: a trained
            model also predicts with these modalities alone.
    """

    source: Any
    y: np.ndarray
    rows: np.ndarray
    shared: bool = False
    there: np.ndarray | None = None
    hide: Callable[[np.ndarray], Any] | None = None
    patterns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def x(self) -> Any:
        """The split's own inputs: arrays, batches, or a function."""
        return take(self.source, self.rows) if self.shared else self.source

    @property
    def in_memory(self) -> bool:
        """Whether the inputs are arrays."""
        return isinstance(self.source, dict)

    def batches(self, seed: int = 0) -> Any:
        """Returns the batches of a stream, in the order of a seed."""
        return self.source(seed) if callable(self.source) else self.x


@dataclasses.dataclass
class Fold:
    """The splits of one fold, or the only ones.

    Attributes:
        parts: dict of split to `Part`.
        table: The adapted `Table` that the inputs come from, or `None`.
        sample: Training inputs and their presence, which small encoders are
            scaled by, once they are read.
    """

    parts: dict[str, Part]
    table: Table | None = None
    sample: tuple[dict, np.ndarray] | None = None


@dataclasses.dataclass
class Data:
    """What a comparison compares on.

    Attributes:
        name: str.
        task: str.
        units: int. Number of outputs.
        classes: list of the names of classes or labels; `None` for numbers.
        modalities: tuple of names.
        folds: list of `Fold`.
        ids: list of str. A name for each sample.
        frozen: dict of modality to `Frozen`, an encoder that stays as it is.
        facts: dict of what the report should tell, such as the settings of
            readers. The log holds it: a comparison goes on from a log only if
            its facts are the same.
        groups: array. The group of each sample, or `None`.
    """

    name: str
    task: str
    units: int
    classes: list[Any] | None
    modalities: tuple[str, ...]
    folds: list[Fold]
    ids: list[str]
    frozen: dict[str, Frozen] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    groups: np.ndarray | None = None

    def test_rows(self) -> np.ndarray:
        """Returns which rows of the data are test samples, sorted."""
        tests = [fold.parts["test"] for fold in self.folds]
        return np.sort(np.concatenate([part.rows for part in tests]))

    def test(self) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Returns labels, names and presence, in the order of `test_rows`."""
        tests = [fold.parts["test"] for fold in self.folds]
        rows = np.concatenate([part.rows for part in tests])
        order = np.argsort(rows, kind="stable")
        y = np.concatenate([part.y for part in tests])[order]
        presence = np.concatenate([presence_of(self, p) for p in tests])[order]
        return y, [self.ids[i] for i in rows[order]], presence

    def test_groups(self) -> np.ndarray | None:
        """Returns the group of each test sample, as `test` has them."""
        return None if self.groups is None else self.groups[self.test_rows()]


def batches_of(part: Part, size: int) -> Iterator[tuple[dict, np.ndarray]]:
    """Yields inputs and labels of a split, in order."""
    if not part.in_memory:
        for batch in part.batches():
            yield dict(batch[0]), np.asarray(ops.convert_to_numpy(batch[1]))
        return
    x = part.x
    for start in range(0, len(part.y), size):
        rows = slice(start, start + size)
        yield take(x, rows), part.y[rows]


def take(x: Any, rows: Any) -> Any:
    """Returns some rows of a structure of arrays."""
    return keras.tree.map_structure(lambda array: array[rows], x)


def presence_of(data: Data, part: Part) -> np.ndarray:
    """Returns which samples of a split have which modalities."""
    if part.in_memory:
        return full_presence(data.modalities, part.x)
    if part.there is not None:
        return part.there
    return np.concatenate(
        [
            full_presence(data.modalities, stacked(data.modalities, x))
            for x, _ in batches_of(part, 0)
        ]
    )


def stacked(modalities: Sequence[str], x: Mapping) -> dict:
    """Returns inputs with presence as one array, if they hold any."""
    x = dict(x)
    if x.get("presence") is not None:
        x["presence"] = stack_presence(modalities, x["presence"])
    return x


@dataclasses.dataclass(frozen=True)
class Division:
    """How samples are divided into splits, or folds.

    Attributes:
        split: str. The column, or array, that names each sample's split.
        group: str. The column, or array, of groups: none is in two splits.
        folds: int. Number of folds, in place of one split.
        seed: int. Seed of random splits.
    """

    split: str | None = None
    group: str | None = None
    folds: int | None = None
    seed: int = 0


def described(data: Data, prints: Sequence[bytes] | None = None) -> Data:
    """Adds sizes, and samples of which another split has a copy.

    Args:
        data: The data.
        prints: A fingerprint of each sample. Defaults to those of arrays.
    """
    first = data.folds[0].parts
    seen = hashlib.blake2b(digest_size=8)
    for fold in data.folds:
        for part in fold.parts.values():
            seen.update(np.ascontiguousarray(part.rows).tobytes())
            seen.update(np.ascontiguousarray(part.y).tobytes())
    for name, frozen in data.frozen.items():
        # A preset may be another one under the same name.
        seen.update(fingerprint(frozen.encoder).encode())
        if (table := data.folds[0].table) is not None:
            read = table.fields[name].get_config()
            seen.update(json.dumps(read, default=str).encode())
    data.facts["samples"] = {s: len(part.y) for s, part in first.items()}
    found = {}
    if prints is not None:
        found = {s: [prints[i] for i in p.rows] for s, p in first.items()}
    elif all(part.in_memory for part in first.values()):
        found = {split: _listed(part) for split, part in first.items()}
    if found:
        others = {*found["train"], *found["validation"]}
        copies = "test samples with a copy in training or validation"
        data.facts[copies] = sum(one in others for one in found["test"])
        for split in SPLITS:
            seen.update(b"".join(found[split]))
    # So that a log is not continued with other data of the same sizes.
    data.facts["fingerprint"] = seen.hexdigest()
    return data


def _listed(part: Part) -> list[bytes]:
    """Returns a fingerprint of each sample's inputs."""
    leaves = keras.tree.flatten(
        {k: v for k, v in part.x.items() if k != "presence"}
    )
    return [
        hashlib.blake2b(
            b"".join(
                np.ascontiguousarray(leaf[i]).tobytes() for leaf in leaves
            ),
            digest_size=16,
        ).digest()
        for i in range(len(part.y))
    ]
