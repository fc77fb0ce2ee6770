"""`fit` and `evaluate` in several processes of `torch.distributed`."""

import math
from typing import Any

import keras
import numpy as np

from keras_mla.backend import distribution, internals


class ProcessRows(keras.utils.PyDataset):
    """The rows of each batch that this process computes.

    Every process holds all data, in the same order, and takes each n-th row of
    a batch, n the number of processes. So the processes together see the
    batches that one process would see.

    Args:
        dataset: `keras.utils.PyDataset` of batches `(x, y)` or
            `(x, y, sample_weight)`, alike in all processes.
        worker: `(index, number)` of the process. Defaults to those of
            `torch.distributed`.

    Raises:
        TypeError: If `dataset` is no `keras.utils.PyDataset`.

    Example:
    >>> dataset = keras_mla.UnpairedDataset(
    ...     {"image": (np.ones((8, 4)), np.zeros(8))}, batch_size=4
    ... )
    >>> x, y = keras_mla.ProcessRows(dataset, worker=(0, 2))[0]
    >>> x["image"].shape
    (2, 4)
    """

    def __init__(
        self, dataset: Any, worker: tuple[int, int] | None = None
    ) -> None:
        if not isinstance(dataset, keras.utils.PyDataset):
            raise TypeError(
                "`dataset` must be a `keras.utils.PyDataset`. Give a "
                "`DataLoader` a sampler of this process's rows instead, such "
                "as `torch.utils.data.DistributedSampler`. Received: an object "
                f"of type {type(dataset).__name__}"
            )
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self.dataset = dataset
        found: tuple[int, int] = worker or distribution.worker()
        self.index, self.number = found

    def __len__(self) -> int:
        """Returns the number of batches in an epoch."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """Returns this process's rows of a batch."""
        return keras.tree.map_structure(
            lambda leaf: (
                None if leaf is None else leaf[self.index :: self.number]
            ),
            self.dataset[index],
        )

    def set_epoch(self, epoch: int) -> None:
        """Tells the data set which epoch begins.

        Args:
            epoch: int. Index of the epoch, counted from 0.
        """
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def on_epoch_begin(self) -> None:
        """Tells the data set that an epoch begins."""
        self.dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tells the data set that an epoch has ended."""
        self.dataset.on_epoch_end()


class ArrayBatches(keras.utils.PyDataset):
    """Batches of arrays, in an order that the seed and the epoch give.

    Args:
        data: Tuple of structures of arrays: `(x, y)`, `(x, y, sample_weight)`.
        batch_size: int. Rows of a batch.
        shuffle: bool. Whether each epoch has an order of its own.
        seed: int. Seed of the orders.
    """

    def __init__(
        self, data: tuple, batch_size: int, shuffle: bool, seed: int
    ) -> None:
        super().__init__()
        self.data = data
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rows = len(keras.tree.flatten(data)[0])
        self.set_epoch(0)

    def __len__(self) -> int:
        return math.ceil(self.rows / self.batch_size)

    def __getitem__(self, index: int) -> Any:
        first = index * self.batch_size
        rows = self._order[first : first + self.batch_size]
        return keras.tree.map_structure(
            lambda leaf: None if leaf is None else leaf[rows], self.data
        )

    def set_epoch(self, epoch: int) -> None:
        """Draws the order of an epoch."""
        self._order = np.arange(self.rows)
        if self.shuffle:
            generator = np.random.default_rng((self.seed, epoch))
            generator.shuffle(self._order)


def check_arguments(given: dict[str, Any]) -> None:
    """Raises if `fit` gets what several processes cannot share."""
    if distribution.num_replicas() > 1 and given.get("validation_split"):
        raise ValueError(
            "`validation_split` is not supported in several processes: pass "
            "`validation_data`. Received: validation_split="
            f"{given['validation_split']}"
        )


def share(given: dict[str, Any], shuffle: bool = False) -> Any:
    """Gives this process its rows of arrays.

    Args:
        given: Arguments of `fit` or `evaluate`. It is changed.
        shuffle: bool. Whether each epoch has an order of its own.

    Returns:
        The argument `x`, as it is then.
    """
    size = given.get("batch_size") or 32
    if distribution.num_replicas() > 1:
        x = given.get("x")
        if isinstance(x, dict):
            weight = given.pop("sample_weight", None)
            data = (x, given.pop("y", None), weight)
            given.pop("batch_size", None)
            given["x"] = _rows_of(data, size, shuffle)
        if "shuffle" in given:
            # Keras would shuffle batches in another order in each process.
            given["shuffle"] = False
        validation = given.get("validation_data")
        if isinstance(validation, tuple | list):
            size = given.pop("validation_batch_size", None) or size
            given["validation_data"] = _rows_of(tuple(validation), size)
    return given.get("x")


def _rows_of(data: tuple, batch_size: int, shuffle: bool = False) -> Any:
    data = data[:2] if len(data) > 2 and data[2] is None else data
    rows = {len(leaf) for leaf in keras.tree.flatten(data) if leaf is not None}
    distribution.meet("the data", rows=min(rows), batch_size=batch_size)
    seed = int(distribution.first_value(np.random.randint(2**31)))
    data = keras.tree.map_structure(
        lambda leaf: leaf if leaf is None else np.asarray(leaf), data
    )
    return ProcessRows(ArrayBatches(data, batch_size, shuffle, seed))


class _Begin(keras.callbacks.Callback):
    """Gives all processes what the first one begins with.

    It comes after the callbacks that may restore a backup.
    """

    def on_train_begin(self, logs: dict | None = None) -> None:
        distribution.begin(self.model)
        epoch = distribution.first_value(internals.initial_epoch(self.model))
        internals.set_initial_epoch(self.model, int(epoch))


def with_beginning(callbacks: Any) -> Any:
    """Adds the callback that lets all processes begin alike."""
    if distribution.num_replicas() == 1:
        return callbacks
    if isinstance(callbacks, keras.callbacks.CallbackList):
        raise ValueError(
            "Pass callbacks as a list in several processes, not as a "
            "`CallbackList`."
        )
    return [*(callbacks or []), _Begin()]
