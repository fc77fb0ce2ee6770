"""Distribution where a step sees the global batch, as on one device."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

# What a process does next, which all processes must do at once.
STEPS = (
    "a batch of training",
    "a batch of evaluation",
    "the end of the data",
    "the end of an epoch",
    "the data",
)


def num_replicas() -> int:
    """Returns 1: a step sees the global batch."""
    return 1


def total(tensors: Sequence[Any]) -> list:
    """Returns the sums of tensors over all replicas, sent in one message."""
    return list(tensors)


def times(value: Any, number: Any) -> Any:
    """Returns a product, and zeros for 0: nothing may count as NaN."""
    zero = ops.zeros_like(value)
    return ops.where(number > 0, value * ops.cast(number, value.dtype), zero)


def divided(value: Any, number: Any) -> Any:
    """Returns a quotient, and zeros where nothing was counted."""
    # Not `maximum(number, 1)`, which `torch.compile` warns of.
    number = ops.maximum(number, ops.ones_like(number))
    return value / ops.cast(number, value.dtype)


def weighted(group: tuple[list, Any, Any]) -> list:
    """Returns a group's tensors, multiplied by its weight."""
    tensors, weight, _ = group
    if weight is None:
        return tensors
    return [times(tensor, weight) for tensor in tensors]


def means(
    groups: Sequence[tuple[list, Any, Any]],
    total: Callable[[list], list] = lambda tensors: tensors,
) -> list[list]:
    """Returns means over all replicas, sent in one message.

    Args:
        groups: For each group a list of tensors, their weight (a float32
            scalar, or `None` for 1), and what to divide by: a float32 scalar,
            added over replicas. Where it is 0, the mean is 0.
        total: The function of this module that adds over replicas.
    """
    numbers = [number for _, _, number in groups]
    sums = {"sums": [weighted(group) for group in groups], "numbers": numbers}
    flat = total(keras.tree.flatten(sums))
    sums = keras.tree.pack_sequence_as(sums, flat)
    return [
        [divided(tensor, number) for tensor in tensors]
        for tensors, number in zip(sums["sums"], sums["numbers"], strict=True)
    ]


def global_mean(values: Any, weights: Any | None) -> Any:
    """Returns the mean over the batch, of the rows that `weights` counts.

    Args:
        values: Tensor of shape `(batch, ...)`.
        weights: `None`, or a bool tensor of shape `(batch,)`.

    Returns:
        Tensor of shape `values.shape[1:]`; zeros if no row is counted.
    """
    return weighted_mean(values, weights)


def weighted_mean(values: Any, weights: Any | None) -> Any:
    """Returns the mean over the first axis, of the rows that `weights` counts.

    Args:
        values: Tensor of shape `(batch, ...)`.
        weights: `None`, or a bool tensor of shape `(batch,)`.

    Returns:
        Tensor of shape `values.shape[1:]`; zeros if no row is counted.
    """
    if weights is None:
        return ops.mean(values, axis=0)
    total, count = weighted_sum(values, weights)
    return total / ops.maximum(count, 1)


def weighted_sum(values: Any, weights: Any | None) -> tuple[Any, Any]:
    """Returns the sum of the rows that `weights` counts, and their number."""
    if weights is None:
        rows = ops.cast(ops.shape(values)[0], values.dtype)
        return ops.sum(values, axis=0), rows
    weights = ops.cast(weights, values.dtype)
    column = ops.reshape(weights, (-1,) + (1,) * (len(values.shape) - 1))
    # `where`, because a row that is not counted may hold NaN.
    rows = ops.where(column > 0, values * column, ops.zeros_like(values))
    return ops.sum(rows, axis=0), ops.sum(weights)


@contextlib.contextmanager
def whole(model: keras.Model) -> Iterator[None]:
    """Gives metrics their sums over processes meanwhile."""
    yield


def row_groups() -> int:
    """Returns 1: any present row of the batch may fill an absent row."""
    return 1


def moves_alone() -> bool:
    """Returns `False`: what a pass moves is the same on all replicas."""
    return False


def coupled() -> bool:
    """Returns `False`: no layer couples rows of several replicas."""
    return False


def begin(model: keras.Model) -> None:
    """Does nothing: all devices begin with the same weights."""


def meet(step: str, **facts: float) -> None:
    """Does nothing: the backend itself keeps devices in step."""


def worker() -> tuple[int, int]:
    """Returns `(0, 1)`: the index of this process, and their number."""
    return 0, 1


def first_value(value: float) -> float:
    """Returns a number of the first process."""
    return value


def filled_up(method: Callable, fill_up: Callable[[Any, int], Any]) -> Callable:
    """Returns the method unchanged: it takes batches of any number of rows.

    Args:
        method: A bound method of Keras that trains or evaluates.
        fill_up: Function of a batch and the number of parts that this process
            holds of it. It returns the batch itself if the parts divide it,
            and else a batch with rows added.
    """
    return method


def predicting(method: Callable) -> Callable:
    """Returns the method `predict` unchanged: it takes any number of rows."""
    return method


def let_predict(model: keras.Model) -> keras.Model:
    """Returns a plain model unchanged: it predicts any number of rows."""
    return model


def add_rows(data: Any, more: int) -> Any:
    """Adds copies of the last row to a structure of arrays."""

    def add(value: Any) -> Any:
        if value is None:
            return None
        value = np.asarray(value)
        return np.concatenate([value, value[-1:].repeat(more, 0)])

    return keras.tree.map_structure(add, data)


def check_placed(model: keras.Model) -> None:
    """Does nothing: the backend itself says where weights must be."""


@contextlib.contextmanager
def on_own_devices(model: keras.Model) -> Iterator[None]:
    """Does nothing: a process can read its predictions."""
    yield
