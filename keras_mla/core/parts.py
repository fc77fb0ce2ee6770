"""The gradients of a batch that is computed in parts.

Parts are the rows of a replica, of a process, or of a micro-batch. Each part
gives sums and numbers, which are added over all parts, sent to all replicas in
one message, and divided once.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.backend import distribution, kernels
from keras_mla.core.losses import MeanLoss
from keras_mla.core.update import Outputs, Pass


@dataclasses.dataclass
class Piece:
    """Losses that count the same samples, which are differentiated together.

    Attributes:
        group: int. Index of the group of losses that the piece belongs to.
        losses: list of scalars, whose sum is differentiated.
        count: int or scalar. The number of samples that they are the mean of.
    """

    group: int
    losses: list
    count: Any


def pieces_of(groups: Sequence[Sequence[Any]], rows: Any) -> list[Piece]:
    """Returns what is to be differentiated, piece by piece.

    Args:
        groups: The losses of each group, and scalars: regularisers, which are
            means over all rows.
        rows: int or scalar. The number of rows of the part.
    """
    pieces: list[Piece] = []
    for group, losses in enumerate(groups):
        for loss in losses:
            if not isinstance(loss, MeanLoss):
                loss = MeanLoss(loss, rows)
            for piece in pieces:
                if piece.group == group and _same(piece.count, loss.count):
                    piece.losses.append(loss.mean)
                    break
            else:
                pieces.append(Piece(group, [loss.mean], loss.count))
    return pieces


def _same(first: Any, second: Any) -> bool:
    if first is second:
        return True
    return (
        isinstance(first, int) and isinstance(second, int) and first == second
    )


def shared(losses: list, counts: list) -> tuple[list, list]:
    """Scales a replica's losses where layers may couple the replicas' rows.

    Synchronized batch normalization does: a replica's gradient has then parts
    of all losses, whose shares must be in them before.

    Args:
        losses: Scalars, means over the replica's own rows.
        counts: Scalars, the numbers of samples that they are the means of.

    Returns:
        The losses to differentiate, and the weights of their gradients.
    """
    if not distribution.coupled():
        return losses, counts
    totals = distribution.total(counts)
    scaled, weights = [], []
    for loss, count, total in zip(losses, counts, totals, strict=True):
        share = ops.cast(count / ops.maximum(total, 1), loss.dtype)
        scaled.append(kernels.zero_unless(count > 0, loss) * share)
        # Absent values may have made the gradient NaN.
        weights.append(kernels.zero_unless(count > 0, total))
    return scaled, weights


class Sums:
    """Sums over the parts of a batch: gradients, statistics and numbers."""

    def __init__(self) -> None:
        self._sums: dict[str, list] | None = None

    def add(
        self,
        gradients: Sequence[list],
        weights: Sequence[Any],
        counts: Sequence[Any],
        means: dict[str, tuple[Any, Any]],
    ) -> None:
        """Adds a part.

        Args:
            gradients: For each piece, its gradients.
            weights: For each piece, the weight of its gradients.
            counts: For each piece, the number of samples that it counts.
            means: What `Hooks.batch_means` has returned.
        """
        self.names = list(means)
        found = {
            "gradients": [
                [_times(gradient, weight) for gradient in of_piece]
                for of_piece, weight in zip(gradients, weights, strict=True)
            ],
            "counts": list(counts),
            "means": [distribution.weighted_sum(*m) for m in means.values()],
        }
        if self._sums is None:
            self._sums = found
        else:
            self._sums = keras.tree.map_structure(ops.add, self._sums, found)

    @property
    def so_far(self) -> Any:
        """The sums of the parts that were added."""
        return self._sums

    def over_replicas(
        self, moved: Sequence[Any], rows: Any
    ) -> tuple[list[list], dict[str, Any], list]:
        """Adds the sums of all replicas, and divides them.

        Args:
            moved: Tensors that each replica has moved by itself.
            rows: int or scalar. The number of the replica's rows.

        Returns:
            For each piece, the gradients of its mean over the whole batch; the
            means of the batch; and the means of `moved` over rows.
        """
        rows = ops.cast(rows, "float32")
        sums: dict = {
            **(self._sums or {}),
            "moved": [_times(value, rows) for value in moved],
            "rows": rows,
        }
        flat = distribution.total(keras.tree.flatten(sums))
        sums = keras.tree.pack_sequence_as(sums, flat)
        gradients = [
            [_divided(gradient, count) for gradient in of_piece]
            for of_piece, count in zip(
                sums["gradients"], sums["counts"], strict=True
            )
        ]
        means = {
            name: _divided(total, count)
            for name, (total, count) in zip(
                self.names, sums["means"], strict=True
            )
        }
        return (
            gradients,
            means,
            [_divided(m, sums["rows"]) for m in sums["moved"]],
        )


def _times(value: Any, number: Any) -> Any:
    """Returns a product, and zeros for 0: nothing may count as NaN."""
    value = kernels.zero_unless(number > 0, value)
    return value * ops.cast(number, value.dtype)


def _divided(value: Any, number: Any) -> Any:
    """Returns a quotient, and zeros where nothing was counted."""
    return value / ops.cast(ops.maximum(number, 1), value.dtype)


def merged(passes: Sequence[Pass]) -> Pass:
    """Returns the passes of a batch's parts as one pass of the batch."""
    if len(passes) == 1:
        return passes[0]
    first = passes[0]
    return Pass(
        [
            _mean(losses)
            for losses in zip(*(p.losses for p in passes), strict=True)
        ],
        {n: _mean([p.experts[n] for p in passes]) for n in first.experts},
        joined([p.outputs for p in passes]),
        {n: _mean([p.logs[n] for p in passes]) for n in first.logs},
    )


def joined(outputs: Sequence[Outputs]) -> Outputs:
    """Returns outputs one below the other.

    Tensors without rows, such as a number, are those of the last part.
    """
    return keras.tree.map_structure(_below, *outputs)


def _below(*leaves: Any) -> Any:
    if leaves[0] is None or not len(leaves[0].shape):
        return leaves[-1]
    return ops.concatenate(leaves, axis=0)


def _mean(losses: Sequence[MeanLoss]) -> MeanLoss:
    """Returns the mean over the samples of all parts."""
    counts = [ops.cast(loss.count, "float32") for loss in losses]
    total = sum(
        _times(ops.cast(loss.mean, "float32"), count)
        for loss, count in zip(losses, counts, strict=True)
    )
    number = sum(counts)
    return MeanLoss(_divided(total, number), number)
