"""Reads one sample in Python, as the pipeline calls for it."""

import logging
import threading
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mla.datasets.listing.problems import Problems
from keras_mla.datasets.listing.sample import Sample
from keras_mla.datasets.pipeline import cache
from keras_mla.datasets.pipeline.reader import Reader

_logger = logging.getLogger("keras_mla")


class Loader:
    """Reads a sample by its index.

    What cannot be decoded raises, is skipped, or is absent. What is absent is
    not decoded.

    Args:
        samples: The samples.
        readers: dict of modality name to `Reader`.
        augment: bool. Whether readers get a random generator.
        cache_dir: str, or `None` for no cache.
        problems: `Problems`. It decides what happens to a sample that cannot
            be decoded.
        presence: bool array `(samples, modalities)`, or `None`. Which samples
            have which modality.

    Attributes:
        skipped: dict of sample id to message, of skipped samples.
        absent: dict of `(sample id, modality)` to message, of modalities that
            could not be decoded.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        readers: Mapping[str, Reader],
        augment: bool,
        cache_dir: str | None,
        problems: Problems,
        presence: np.ndarray | None = None,
    ) -> None:
        self.samples = samples
        self.readers = readers
        self.augment = augment
        self.cache_dir = cache_dir
        self.problems = problems
        self.presence = np.array(
            [[name in s.inputs for name in readers] for s in samples], bool
        )
        if presence is not None:
            self.presence &= presence
        self.skipped: dict[str, str] = {}
        self.absent: dict[tuple[str, str], str] = {}
        self.lock = threading.Lock()

    def __call__(self, index: np.int64, seed: np.int64) -> list[Any]:
        """Returns `[fine, present, *arrays]`.

        `fine` is false for a skipped sample; `present` says which modalities
        the sample has. The arrays of absent modalities hold zeros.
        """
        sample = self.samples[int(index)]
        present = self.presence[int(index)].copy()
        arrays = []
        for column, (name, reader) in enumerate(self.readers.items()):
            value = None
            if present[column]:
                try:
                    value = self.read(name, reader, sample, int(seed))
                except (ValueError, OSError, MemoryError) as error:
                    message = f"{sample.source}: sample {sample.id!r}: {error}"
                    if self.problems.absent:
                        present[column] = False
                        self._note(self.absent, (sample.id, name), message)
                    elif self.problems.skip:
                        self._note(self.skipped, sample.id, message)
                        blanks = map(_blank, self.readers.values())
                        return [np.False_, present, *blanks]
                    else:
                        raise ValueError(message) from error
            arrays.append(_blank(reader) if value is None else value)
        return [np.True_, present, *arrays]

    def _note(self, notes: dict, key: Any, message: str) -> None:
        with self.lock:
            if key not in notes:
                notes[key] = message
                what = "Absent" if notes is self.absent else "Skipped"
                _logger.warning("%s: %s", what, message)

    def read(self, name: str, reader: Reader, sample: Sample, seed: int) -> Any:
        """Returns the array of one modality."""
        # Every modality draws from its own stream, so that leaving one out
        # does not change the others.
        rng = None
        if self.augment:
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if self.cache_dir is not None and reader.key:
            value = cache.decode_once(self.cache_dir, name, reader, sample)
        else:
            value = reader.decode(sample)
        return reader.finish(value, rng) if reader.finish else value


def _blank(reader: Reader) -> Any:
    if reader.dtype == "object":
        return b""
    return np.zeros([1 if n is None else n for n in reader.shape], reader.dtype)
