"""What reaches an encoder in place of absent rows."""

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

    Args:
        values: Tensor of shape `(batch, ...)`, or a structure of them.
        present: Bool tensor of shape `(batch,)`.
        training: bool. Whether to take present rows in turn.
    """
    if training:
        index = rows_in_turn(present, distribution.row_groups())
    else:
        rank = ops.cumsum(ops.cast(present, "int32"))
        # Not `arange`, which jax2onnx cannot export for an unknown size.
        positions = ops.cumsum(ops.ones_like(rank)) - 1
        # `first` is the number of rows before the first present row.
        first = ops.sum(ops.cast(rank == 0, "int32"))
        kept = ops.logical_or(present, first == ops.shape(present)[0])
        index = ops.where(kept, positions, first)
    return keras.tree.map_structure(
        lambda value: ops.take(value, index, axis=0), values
    )


def rows_in_turn(present: Any, groups: int = 1) -> Any:
    """Returns which row to put in the place of each row.

    Args:
        present: Bool tensor of shape `(batch,)`.
        groups: int. The number of groups of rows in the batch, one after the
            other. A row is replaced by a row of its own group. Defaults to
            `1`.

    Returns:
        int32 tensor of shape `(batch,)`: the row itself if it is present, or
        if no row of its group is present; else the present rows of its group
        in turn.
    """
    rows = ops.shape(present)[0] // groups
    positions = ops.arange(rows, dtype="int32")

    def of_group(present: Any) -> Any:
        rank = ops.cumsum(ops.cast(present, "int32"))
        count = ops.sum(ops.cast(present, "int32"))
        # The k-th present row is the first one of rank k + 1.
        wanted = positions % ops.maximum(count, 1) + 1
        found = ops.cast(ops.searchsorted(rank, wanted), "int32")
        return ops.where(ops.logical_or(present, count == 0), positions, found)

    if groups == 1:
        return of_group(present)
    index = ops.vectorized_map(of_group, ops.reshape(present, (groups, rows)))
    offset = rows * ops.arange(groups, dtype="int32")
    return ops.reshape(index + offset[:, None], (-1,))


def where_present(presence: Any | None, index: int, values: Any) -> Any:
    """Sets a structure of tensors to zero for samples without a modality."""
    if presence is None:
        return values

    def shown(value: Any) -> Any:
        ones = (1,) * (len(value.shape) - 1)
        mask = ops.reshape(presence[:, index], (-1, *ones))
        return ops.where(mask, value, ops.zeros_like(value))

    return keras.tree.map_structure(shown, values)
