"""Reads one sample in Python, as both engines call for it."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_mla.datasets.listing.problems import Problems
from keras_mla.datasets.listing.sample import Sample
from keras_mla.datasets.pipeline import cache, order
from keras_mla.datasets.pipeline.reader import Reader
from keras_mla.datasets.readers.arrays import to_numpy

_logger = logging.getLogger("keras_mla")


class Row(NamedTuple):
    """What was read of a sample.

    Attributes:
        fine: bool. False for a sample that is skipped.
        present: bool array `(modalities,)`.
        arrays: list of arrays, one for each modality. Arrays of absent
            modalities hold zeros.
        problems: list of the arguments of `Notes.add`.
    """

    fine: bool
    present: np.ndarray
    arrays: list[Any]
    problems: list[tuple[bool, Any, str]]


class Notes:
    """What could not be decoded, noted and logged once.

    Attributes:
        skipped: dict of sample id to message, of skipped samples.
        absent: dict of `(sample id, modality)` to message, of modalities that
            could not be decoded.
    """

    def __init__(self) -> None:
        self.skipped: dict[str, str] = {}
        self.absent: dict[tuple[str, str], str] = {}
        self._guard = threading.Lock()

    def take(self, rows: Iterable[Row]) -> None:
        """Notes all problems of rows."""
        for row in rows:
            for problem in row.problems:
                self.add(*problem)

    def add(self, absent: bool, key: Any, message: str) -> None:
        """Notes a sample that is skipped, or a modality that is absent."""
        notes: dict = self.absent if absent else self.skipped
        with self._guard:
            if key not in notes:
                notes[key] = message
                what = "Absent" if absent else "Skipped"
                _logger.warning("%s: %s", what, message)


class Loader:
    """Reads a sample by its index.

    What cannot be decoded raises, is skipped, or is absent. What is absent is
    not decoded. Worker processes get the loader as a pickle.

    Args:
        samples: The samples.
        readers: dict of modality name to `Reader`.
        seed: int. Seed of random crops and masks.
        augment: bool. Whether readers get a random generator.
        cache_dir: str, or `None` for no cache.
        problems: `Problems`. It decides what happens to a sample that cannot
            be decoded.
        presence: bool array `(samples, modalities)`, or `None`. Which samples
            have which modality.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        readers: Mapping[str, Reader],
        seed: int,
        augment: bool,
        cache_dir: str | None,
        problems: Problems,
        presence: np.ndarray | None = None,
    ) -> None:
        self.samples = samples
        self.readers = dict(readers)
        self.seed = seed
        self.augment = augment
        self.cache_dir = cache_dir
        self.problems = problems
        self.presence = np.array(
            [[name in s.inputs for name in readers] for s in samples], bool
        )
        if presence is not None:
            self.presence &= presence

    def read(self, index: int, epoch: int) -> Row:
        """Reads a sample: decodes each modality and finishes it."""
        sample = self.samples[index]
        present = self.presence[index].copy()
        arrays: list[Any] = []
        problems: list[tuple[bool, Any, str]] = []
        for column, (name, reader) in enumerate(self.readers.items()):
            value = None
            if present[column]:
                try:
                    value = self._modality(name, reader, index, epoch)
                except (ValueError, OSError, MemoryError) as error:
                    message = f"{sample.source}: sample {sample.id!r}: {error}"
                    if self.problems.absent:
                        present[column] = False
                        problems.append((True, (sample.id, name), message))
                    elif self.problems.skip:
                        problems.append((False, sample.id, message))
                        blanks = list(map(_blank, self.readers.values()))
                        return Row(False, present, blanks, problems)
                    else:
                        raise ValueError(message) from error
            arrays.append(_blank(reader) if value is None else value)
        return Row(True, present, arrays, problems)

    def _modality(
        self, name: str, reader: Reader, index: int, epoch: int
    ) -> Any:
        sample = self.samples[index]
        rng = None
        if self.augment:
            rng = order.generator(self.seed, epoch, index, name)
        if self.cache_dir is not None and reader.key:
            value = cache.decode_once(self.cache_dir, name, reader, sample)
        else:
            value = reader.decode(sample)
        value = reader.finish(value, rng) if reader.finish else value
        if reader.dtype == "object":
            return value.encode() if isinstance(value, str) else value
        return to_numpy(value).astype(
            reader.dtype, "C", "same_kind", copy=False
        )

    def masker(self, name: str) -> Callable[[Any, int, int], Any] | None:
        """Returns `(array, index, epoch) -> array`, the reader's `augment`.

        Returns:
            A function, or `None` if there is nothing to do.
        """
        augment = self.readers[name].augment
        if augment is None or not self.augment:
            return None

        def mask(array: Any, index: int, epoch: int) -> Any:
            # Another stream than that of `finish`, which ran elsewhere.
            rng = order.generator(self.seed, int(epoch), int(index), name, 1)
            return to_numpy(augment(array, rng))

        return mask


def _blank(reader: Reader) -> Any:
    if reader.dtype == "object" and not reader.shape:
        return b""
    if reader.dtype == "object":
        return np.full([n or 1 for n in reader.shape], b"", object)
    return np.zeros([1 if n is None else n for n in reader.shape], reader.dtype)
