"""Threads and processes that read samples."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from keras_mla.datasets.pipeline.loader import Loader, Row
from keras_mla.datasets.pipeline.reader import Reader
from keras_mla.datasets.readers.arrays import to_numpy

_MOST_WORKERS = 8


class Pools:
    """The threads or processes that read, and the thread that joins batches.

    They start when they are first needed, and end with the object.

    Args:
        loader: `Loader`. It reads samples.
        workers: int. Number of threads or processes. Defaults to the number
            of CPU cores, at most 8.
        processes: bool. Whether to start processes.
    """

    def __init__(
        self, loader: Loader, workers: int | None, processes: bool = False
    ) -> None:
        self.loader = loader
        self.workers = workers or min(_MOST_WORKERS, _cores())
        self.processes = processes
        self._readers: concurrent.futures.Executor | None = None
        # A thread of its own, since it waits for the others.
        self._joiner = concurrent.futures.ThreadPoolExecutor(1, "join")

    def read(self, epoch: int, indices: np.ndarray) -> list[Future]:
        """Begins to read samples, in tasks small enough for all workers."""
        if self._readers is None:
            self._readers = self._make()
        step = max(1, len(indices) // (4 * self.workers))
        call: Callable = _read_in_worker
        if not self.processes:
            call = functools.partial(read_rows, self.loader)
        return [
            self._readers.submit(call, epoch, indices[i : i + step])
            for i in range(0, len(indices), step)
        ]

    def join(self, *call: Any) -> Future:
        """Begins to join what is read, in a thread that may wait."""
        return self._joiner.submit(*call)

    def close(self) -> None:
        """Ends the workers; the next call starts new ones."""
        if self._readers is not None:
            self._readers.shutdown(wait=False, cancel_futures=True)
        self._readers = None

    def _make(self) -> concurrent.futures.Executor:
        if not self.processes:
            return concurrent.futures.ThreadPoolExecutor(self.workers, "read")
        # What works on whole batches stays here: tokenizers need not be
        # pickled, and bytes of pixels are a quarter of normalised ones.
        readers = {
            name: dataclasses.replace(reader, batched=None)
            for name, reader in self.loader.readers.items()
        }
        given = Loader.__new__(Loader)
        vars(given).update(vars(self.loader), readers=readers)
        # A copy of this process could hang: its backend runs threads.
        return concurrent.futures.ProcessPoolExecutor(
            self.workers,
            multiprocessing.get_context("spawn"),
            _start_worker,
            (given,),
        )


_worker_loader: Loader


def _start_worker(loader: Loader) -> None:
    global _worker_loader
    _worker_loader = loader
    # Ctrl-C ends the main process, which ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends a worker whose main process was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _read_in_worker(epoch: int, indices: np.ndarray) -> list[Row]:
    return read_rows(_worker_loader, epoch, indices)


def read_rows(loader: Loader, epoch: int, indices: np.ndarray) -> list[Row]:
    """Reads samples, up to what is done with whole batches."""
    return [_read_one(loader, epoch, int(index)) for index in indices]


def _read_one(loader: Loader, epoch: int, index: int) -> Row:
    row = loader.read(index, epoch)
    if not row.fine:
        return row._replace(arrays=[])
    arrays = []
    for (name, reader), array in zip(
        loader.readers.items(), row.arrays, strict=True
    ):
        if reader.dtype != "object":
            _check_shape(loader, name, reader, array, index)
        if reader.features is not None:
            array = to_numpy(reader.features(array))
        mask = loader.masker(name)
        arrays.append(array if mask is None else mask(array, index, epoch))
    return row._replace(arrays=arrays)


def _check_shape(
    loader: Loader, name: str, reader: Reader, array: np.ndarray, index: int
) -> None:
    expected, shape = reader.shape, array.shape
    if len(shape) != len(expected) or any(
        n is not None and n != m for n, m in zip(expected, shape, strict=True)
    ):
        sample = loader.samples[index]
        raise ValueError(
            f"{sample.source}: sample {sample.id!r}: the reader of {name!r} "
            f"must give arrays of shape {expected}. Received: shape={shape}"
        )


def stack(values: list[Any]) -> np.ndarray:
    """Joins the arrays or texts of samples to a batch."""
    if isinstance(values[0], np.ndarray):
        return np.stack(values)
    texts: np.ndarray = np.empty(len(values), object)
    texts[:] = values
    return texts


def _cores() -> int:
    with contextlib.suppress(AttributeError):  # Not on every system.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
