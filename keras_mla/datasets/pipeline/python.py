"""The engine in Python: a `PyDataset` with threads or worker processes."""

import concurrent.futures
import dataclasses
import math
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import keras
import numpy as np

from keras_mla.datasets.pipeline.join import join
from keras_mla.datasets.pipeline.plan import Plan
from keras_mla.datasets.pipeline.pools import Pools

# Batches that are read ahead of the one that is asked for.
_AHEAD = 2


class Batches(keras.utils.PyDataset):
    """Batches of `({modality: x}, label)` as NumPy arrays, for any backend.

    `pipeline.build` and the data sets' `load` return this class where
    TensorFlow is not installed, or with `engine="python"`. It decodes samples
    in threads or in worker processes of its own, some batches ahead, so that
    Keras needs no workers. Neither their number nor their kind changes what
    is read. Batch `i` depends on the epoch alone.

    A loop `for x, y in batches` begins an epoch, and so does Keras's `fit`.
    `batches[i]` belongs to the epoch that comes next. The `fit` of models of
    `keras_mla` does not shuffle the batches again. In a `keras.Model`, pass
    `shuffle=False` to `fit`.

    Args:
        plan: What `pipeline.build` has checked.
        use_multiprocessing: bool. Whether to decode in processes instead of
            threads. Defaults to `False`.

    Attributes:
        skipped: dict of sample id to message. Samples that were skipped.
        absent: dict of `(sample id, modality)` to message. Modalities that
            could not be decoded.

    Example:
    >>> from keras_mla.datasets import pipeline
    >>> texts = ["a pinch of salt", "some oil", "a pan"]
    >>> samples = [
    ...     pipeline.Sample(str(i), i, {"text": text}, f"line {i + 1}")
    ...     for i, text in enumerate(texts)
    ... ]
    >>> batches = pipeline.build(
    ...     samples,
    ...     {"text": pipeline.text_reader()},
    ...     batch_size=2,
    ...     engine="python",
    ... )
    >>> len(batches)
    2
    >>> x, y = batches[1]
    >>> x["text"], y
    (array([b'a pan'], dtype=object), array([2], dtype=int32))
    """

    def __init__(self, plan: Plan, use_multiprocessing: bool = False) -> None:
        # Keras gets no workers: its queue starts before an epoch begins, and
        # keeps batches of the one before.
        super().__init__()
        self.plan = plan
        self.skipped, self.absent = plan.notes.skipped, plan.notes.absent
        self._size = plan.batch_size or 1
        self._pools = Pools(plan.loader, plan.workers, use_multiprocessing)
        workers = self._pools.workers
        self._ahead = max(_AHEAD, math.ceil(2 * workers / self._size))
        self._order: tuple[int, np.ndarray] = (-1, np.arange(0))
        self._waiting: dict[tuple[int, int], _Batch] = {}
        self._last = -1
        self._guard = threading.Lock()
        self._begun = False

    def __len__(self) -> int:
        """Returns the number of batches in an epoch."""
        return math.ceil(len(self.plan.labels) / self._size)

    def __iter__(self) -> Iterator[tuple]:
        """Yields the batches of one epoch, and begins the epoch."""
        epoch = self.plan.epochs.begin()
        for index in range(len(self)):
            yield self._get(epoch, index)

    def __getitem__(self, index: int) -> tuple:
        """Returns batch `index` of the epoch that comes next.

        Raises:
            ValueError: If a sample cannot be decoded. The message names the
                list file and line, the sample, the file and the reason.
            RuntimeError: If a worker process died.
        """
        return self._get(self.plan.epochs.following, index)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch that is read next.

        The `fit` of models of `keras_mla` calls this method, so that training
        that is resumed at epoch 3 reads what it would have read anyway.

        Args:
            epoch: int. The first epoch is 0.
        """
        self.plan.epochs.set(epoch)

    def on_epoch_begin(self) -> None:
        """Notes that Keras begins an epoch."""
        self._begun = True

    def on_epoch_end(self) -> None:
        """Goes on to the next epoch, if Keras has begun this one."""
        if self._begun:
            self.plan.epochs.begin()
        self._begun = False

    def _get(self, epoch: int, index: int) -> tuple:
        count = len(self)
        if not 0 <= index < count:
            raise IndexError(f"Batch {index} of {count}")
        if not (self.plan.shuffle or self.plan.loader.augment):
            epoch = 0  # All epochs are the same.
        try:
            with self._guard:
                # Nothing is read ahead of batches that are picked at random.
                follows = index in (0, self._last + 1)
                self._last = index
                last = min(index + self._ahead * follows, count - 1)
                wanted = [(epoch, i) for i in range(index, last + 1)]
                for key in set(self._waiting) - set(wanted):
                    self._waiting.pop(key).cancel()
                for key in wanted:
                    if key not in self._waiting:
                        self._waiting[key] = self._start(*key)
                batch = self._waiting[epoch, index]
            result = batch.whole.result()
            with self._guard:
                self._waiting.pop((epoch, index), None)
            return result
        except BaseException as error:
            # Ctrl-C too ends what is read ahead.
            with self._guard:
                for batch in self._waiting.values():
                    batch.cancel()
                self._waiting.clear()
            if isinstance(error, KeyboardInterrupt):
                self._pools.close()
            if isinstance(error, concurrent.futures.BrokenExecutor):
                self._pools.close()
                raise RuntimeError(
                    "A worker process died while it decoded samples: perhaps "
                    "the memory was used up, or a library crashed on a "
                    "damaged file. To find the file, read the data with "
                    "`use_multiprocessing=False`. A script that uses worker "
                    'processes also needs `if __name__ == "__main__":` '
                    "around what it runs."
                ) from error
            raise

    def _start(self, epoch: int, index: int) -> "_Batch":
        if self._order[0] != epoch:
            self._order = (epoch, self.plan.order(epoch))
        order = self._order[1]
        first = index * self._size
        parts = self._pools.read(epoch, order[first : first + self._size])
        whole = self._pools.join(join, self.plan, parts, epoch, order, first)
        return _Batch(parts, whole)


@dataclasses.dataclass(frozen=True)
class _Batch:
    """A batch that is being read."""

    parts: list[Future]
    whole: Future

    def cancel(self) -> None:
        for future in (*self.parts, self.whole):
            future.cancel()
