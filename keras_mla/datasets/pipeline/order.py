"""The order of samples and their random numbers, from seed and epoch."""

import threading
import zlib

import numpy as np


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Returns the order of an epoch: a permutation of `range(count)`."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def generator(
    seed: int, epoch: int, index: int, name: str, *more: int
) -> np.random.Generator:
    """Returns the random numbers of one modality of a sample in an epoch.

    Each modality has random numbers of its own, so that leaving one out
    does not change the others.

    Args:
        seed: int. The pipeline's seed.
        epoch: int. The epoch.
        index: int. The sample's index in the list of samples.
        name: str. The modality.
        *more: int. Names another stream of the same modality.
    """
    key = [seed, epoch, index, zlib.crc32(name.encode()), *more]
    return np.random.default_rng(key)


class Epochs:
    """The number of the epoch that is read next.

    Each iteration over the data begins an epoch. Threads may share the object.
    """

    def __init__(self) -> None:
        self._following = 0
        self._guard = threading.Lock()

    @property
    def following(self) -> int:
        """Returns the epoch that the next iteration reads."""
        return self._following

    def set(self, epoch: int) -> None:
        """Sets the epoch that the next iteration reads.

        Args:
            epoch: int. The first epoch is 0.

        Raises:
            ValueError: If the epoch is negative.
        """
        if epoch < 0:
            raise ValueError(
                f"`epoch` must be at least 0. Received: epoch={epoch}"
            )
        with self._guard:
            self._following = int(epoch)

    def begin(self) -> int:
        """Returns the epoch that begins; the following one comes next."""
        with self._guard:
            self._following += 1
            return self._following - 1
