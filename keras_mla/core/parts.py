"""The gradients of a batch that is computed in parts.

Parts are the rows of a replica, of a process, or of a micro-batch. Each part
gives sums and numbers, which are added over all parts, sent to all replicas in
one message, and divided once (`backend.distribution.means`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.backend import distribution, kernels
from keras_mla.backend.distribution.common import divided, times
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


def pieces_of(groups: Sequence[Sequence[MeanLoss]]) -> list[Piece]:
    """Returns what is to be differentiated, piece by piece.

    Args:
        groups: The losses of each group.
    """
    pieces: list[Piece] = []
    for group, losses in enumerate(groups):
        for loss in losses:
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
        [_mean(p) for p in zip(*(p.penalties for p in passes), strict=True)],
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
        times(ops.cast(loss.mean, "float32"), count)
        for loss, count in zip(losses, counts, strict=True)
    )
    number = sum(counts)
    return MeanLoss(divided(total, number), number)
