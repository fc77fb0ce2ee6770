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
    """Reads a sample by its index; raises or skips what cannot be decoded.

    Args:
        samples: The samples.
        readers: dict of modality name to `Reader`.
        augment: bool. Whether readers get a random generator.
        cache_dir: str, or `None` for no cache.
        problems: `Problems`. It decides what happens to a sample that cannot
            be decoded.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        readers: Mapping[str, Reader],
        augment: bool,
        cache_dir: str | None,
        problems: Problems,
    ) -> None:
        self.samples = samples
        self.readers = readers
        self.augment = augment
        self.cache_dir = cache_dir
        self.problems = problems
        self.skipped: dict[str, str] = {}
        self.lock = threading.Lock()

    def __call__(self, index: np.int64, seed: np.int64) -> list[Any]:
        """Returns `[fine, *arrays]`; `fine` is false for a skipped sample."""
        sample = self.samples[int(index)]
        try:
            arrays = [
                self.read(name, reader, sample, int(seed))
                for name, reader in self.readers.items()
            ]
        except (ValueError, OSError, MemoryError) as error:
            message = f"{sample.source}: sample {sample.id!r}: {error}"
            if not self.problems.skip:
                raise ValueError(message) from error
            with self.lock:
                if sample.id not in self.skipped:
                    self.skipped[sample.id] = message
                    _logger.warning("Skipped: %s", message)
            return [np.False_, *(_blank(r) for r in self.readers.values())]
        return [np.True_, *arrays]

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
