"""What reaches an encoder in place of absent rows."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mla.backend import distribution


def fill_absent(values: Any, present: Any, training: bool | None) -> Any:
    """Replaces rows of absent samples by rows of present ones.

    In prediction each absent row becomes a copy of the first present row. In
    training the present rows are taken in turn, so that statistics such as
    BatchNormalization's see each row about equally often. If no row is
    present, absent rows stay unchanged. Results of such rows must be replaced
    by `where`, because they may be NaN.

    If devices share the batch, each fills its own rows from its own rows, so
    that no device receives the inputs of the others. A device without a
    present row gets one row of another device.

    Args:
        values: Tensor of shape `(batch, ...)`, or a structure of them.
        present: Bool tensor of shape `(batch,)`.
        training: bool. Whether to take present rows in turn.
    """
    find = rows_in_turn if training else first_rows
    groups, rows = distribution.row_groups(), present.shape[0]
    # A size that is not an int is a tracer's placeholder for an unknown one.
    if groups > 1 and isinstance(rows, int) and rows % groups == 0:
        return fill_in_groups(values, present, find, groups)
    index = find(present)
    return keras.tree.map_structure(
        lambda value: ops.take(value, index, axis=0), values
    )


def fill_in_groups(
    values: Any, present: Any, find: Callable[[Any], Any], groups: int
) -> Any:
    """Replaces absent rows by present rows of the same group.

    Args:
        values: Tensor of shape `(batch, ...)`, or a structure of them.
        present: Bool tensor of shape `(batch,)`.
        find: `rows_in_turn` or `first_rows`.
        groups: int. The number of groups of rows in the batch, one after the
            other. It divides the number of rows.
    """
    rows = present.shape[0] // groups
    present = ops.reshape(present, (groups, rows))
    index = ops.vectorized_map(find, present)
    filled = ops.any(present, axis=1)
    lender = ops.logical_and(filled, ops.cumsum(ops.cast(filled, "int32")) == 1)
    borrows = ops.logical_and(ops.any(filled), ops.logical_not(filled))

    def fill(value: Any) -> Any:
        shape = tuple(value.shape)
        value = ops.reshape(value, (groups, rows, *shape[1:]))
        # A gather for each group: XLA moves all rows to all devices for one
        # gather over the batch, whatever the indices are.
        value = ops.vectorized_map(
            lambda pair: ops.take(pair[0], pair[1], axis=0), (value, index)
        )
        # The first row of a group is present now, if any was. The sum has one
        # term, because only a sum sends no more than a row.
        ones = (1,) * (len(shape) - 1)
        first = value[:, 0]
        lent = ops.where(
            ops.reshape(lender, (groups, *ones)), first, ops.zeros_like(first)
        )
        lent = ops.cast(ops.sum(lent, axis=0), value.dtype)
        borrowing = ops.reshape(borrows, (groups, 1, *ones))
        return ops.reshape(ops.where(borrowing, lent, value), shape)

    return keras.tree.map_structure(fill, values)


def first_rows(present: Any) -> Any:
    """Returns which row to put in the place of each row in prediction.

    Args:
        present: Bool tensor of shape `(batch,)`.

    Returns:
        int32 tensor of shape `(batch,)`: the row itself if it is present, or
        if no row is; else the first present row.
    """
    rank = ops.cumsum(ops.cast(present, "int32"))
    # Not `arange`, which jax2onnx cannot export for an unknown size.
    positions = ops.cumsum(ops.ones_like(rank)) - 1
    # `first` is the number of rows before the first present row.
    first = ops.sum(ops.cast(rank == 0, "int32"))
    kept = ops.logical_or(present, first == ops.shape(present)[0])
    return ops.where(kept, positions, first)


def rows_in_turn(present: Any) -> Any:
    """Returns which row to put in the place of each row in training.

    Args:
        present: Bool tensor of shape `(batch,)`.

    Returns:
        int32 tensor of shape `(batch,)`: the row itself if it is present, or
        if no row is; else the present rows in turn.
    """
    positions = ops.arange(ops.shape(present)[0], dtype="int32")
    rank = ops.cumsum(ops.cast(present, "int32"))
    count = ops.sum(ops.cast(present, "int32"))
    # The k-th present row is the first one of rank k + 1.
    wanted = positions % ops.maximum(count, 1) + 1
    found = ops.cast(ops.searchsorted(rank, wanted), "int32")
    return ops.where(ops.logical_or(present, count == 0), positions, found)


def where_present(presence: Any | None, index: int, values: Any) -> Any:
    """Sets a structure of tensors to zero for samples without a modality."""
    if presence is None:
        return values

    def shown(value: Any) -> Any:
        ones = (1,) * (len(value.shape) - 1)
        mask = ops.reshape(presence[:, index], (-1, *ones))
        return ops.where(mask, value, ops.zeros_like(value))

    return keras.tree.map_structure(shown, values)
