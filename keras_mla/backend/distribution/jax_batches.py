"""Batches of any number of rows, for Keras's trainer on JAX.

JAX shares a batch only among devices that divide its rows. Rows are added to
other batches, on the way from the data to the devices.
"""

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import keras
import numpy as np
from keras.src.backend.jax import trainer

from keras_mla.backend.distribution.common import add_rows


class _Batches(trainer.JAXEpochIterator):
    """Keras's iterator, which adds rows to batches that devices do not divide.

    Args:
        fill_up: Function as for `with_rows_added`.
        begin: Function that is called before the first batch of an epoch.
        **kwargs: Arguments of Keras's iterator.
    """

    def __init__(
        self, fill_up: Callable, begin: Callable[[], None], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.fill_up = fill_up
        self.begin = begin
        # Whether processes know that they add equally many rows.
        self.alike = check_alike(self.data_adapter)

    def _get_distributed_iterator(self, distribution: Any) -> Iterator[Any]:
        self.begin()
        parts = own_parts(distribution)
        layouts = None
        for data in self.data_adapter.get_jax_iterator():
            filled = self.fill_up(data, parts)
            if filled is not data:
                if not self.alike:
                    raise ValueError(
                        f"This process holds {parts} parts of each batch, "
                        f"which do not divide {number_of_rows(data)} rows. "
                        "Processes that read data sets do not know whether "
                        "the others have as many rows: drop the remainder "
                        "(`batch(size, drop_remainder=True)`), or pass arrays."
                    )
                # It may have entries that other batches do not have.
                yield trainer._distribute_data(filled)
                continue
            if layouts is None:
                layouts = _layouts(data, distribution)
            yield trainer._distribute_data(data, layouts)


def check_alike(adapter: Any) -> bool:
    """Raises if processes that share batches have other numbers of them.

    Each would wait for the others without end.

    Args:
        adapter: Keras's data adapter.

    Returns:
        Whether it is known that all batches have equally many rows.
    """
    distribution: Any = keras.distribution.distribution()
    devices = distribution.device_mesh.backend_mesh.devices.flat
    if len({device.process_index for device in devices}) == 1:
        return True
    number, rows = adapter.num_batches, adapter.batch_size
    # A generator's adapter does not implement the size of the last batch.
    last = None if rows is None else adapter.partial_batch_size or rows
    own = [-1 if size is None else int(size) for size in (number, rows, last)]
    from jax.experimental import multihost_utils

    sizes = multihost_utils.process_allgather(np.array(own))
    if (sizes != sizes[0]).any():
        raise ValueError(
            "Each process must pass as many batches as the others, with "
            "equally many rows. Received, of each process (-1 for unknown): "
            + "; ".join(
                f"{number} batches of {rows} rows, the last one of {last}"
                for number, rows, last in sizes
            )
        )
    return -1 not in own


def own_parts(distribution: Any) -> int:
    """Returns the number of parts that this process holds of a batch."""
    mesh = distribution.device_mesh.backend_mesh
    axis = mesh.axis_names.index(distribution.batch_dim_name)
    own = jax.process_index()
    return len(
        {
            place[axis]
            for place, device in np.ndenumerate(mesh.devices)
            if device.process_index == own
        }
    )


def _layouts(data: Any, distribution: Any) -> Any:
    # Made once: it takes longer than a small batch's way to the devices.
    return keras.tree.map_structure(
        lambda leaf: (
            None
            if leaf is None
            else distribution.get_data_layout(leaf.shape).backend_layout
        ),
        data,
    )


def with_rows_added(
    method: Callable,
    fill_up: Callable[[Any, int], Any],
    begin: Callable[[], None] = lambda: None,
) -> Callable:
    """Returns a method of Keras's trainer that takes any number of rows.

    The method is a copy, which finds other functions under two names of its
    module. So other models keep Keras's, also in other threads, and in
    callbacks of this method.

    Args:
        method: A bound method. Unless it is Keras's own, it is returned
            unchanged.
        fill_up: Function of a batch and the number of parts that this process
            holds of it. It returns the batch itself if the parts divide it,
            and else a batch with rows added.
        begin: Function that is called before the first batch of an epoch.
    """
    function: Any = inspect.unwrap(method.__func__)  # type: ignore
    if function.__globals__ is not vars(trainer):
        return method

    def distribute(data: Any) -> Any:
        distribution = keras.distribution.distribution()
        return trainer._distribute_data(fill_up(data, own_parts(distribution)))

    copy = types.FunctionType(
        function.__code__,
        {
            **function.__globals__,
            "JAXEpochIterator": functools.partial(_Batches, fill_up, begin),
            # `train_on_batch` and `test_on_batch` call it.
            "_distribute_data": distribute,
        },
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return types.MethodType(copy, method.__self__)  # type: ignore


def predicting(method: Callable) -> Callable:
    """Returns `predict` of a model, for any number of rows.

    Callbacks see the outputs of added rows too.

    Args:
        method: The bound method `predict` of Keras.
    """

    def predict(*args: Any, **kwargs: Any) -> Any:
        # The rows of each batch, without and with added ones.
        sizes: list[tuple[int, int]] = []

        def fill_up(data: Any, parts: int) -> Any:
            rows = number_of_rows(data)
            more = -rows % parts
            sizes.append((rows, rows + more))
            return add_rows(data, more) if more else data

        # Keras may read a batch to build a model, and begin anew.
        added = with_rows_added(method, fill_up, sizes.clear)
        return _without_added(added(*args, **kwargs), sizes)

    return predict


def number_of_rows(data: Any) -> int:
    """Returns the number of rows of a batch."""
    leaves = [leaf for leaf in keras.tree.flatten(data) if leaf is not None]
    return len(leaves[0])


def _without_added(outputs: Any, sizes: list[tuple[int, int]]) -> Any:
    """Returns outputs without the rows that were added to batches."""
    if all(rows == total for rows, total in sizes):
        return outputs
    kept = np.concatenate([np.arange(total) < rows for rows, total in sizes])
    return keras.tree.map_structure(lambda value: value[kept], outputs)
