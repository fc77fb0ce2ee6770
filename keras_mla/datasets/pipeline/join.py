"""Joins the samples of a batch."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from keras_mla.datasets.pipeline.loader import Row
from keras_mla.datasets.pipeline.plan import Plan
from keras_mla.datasets.pipeline.pools import read_rows, stack
from keras_mla.datasets.readers.arrays import to_numpy


def join(
    plan: Plan,
    parts: Sequence[Future],
    epoch: int,
    order: np.ndarray,
    first: int,
) -> tuple:
    """Joins the rows of a batch as soon as they are read."""
    rows = [row for part in parts for row in part.result()]
    indices = order[first : first + len(rows)]
    plan.notes.take(rows)
    fine = np.array([row.fine for row in rows])
    if not fine.any():
        rows, indices = _next_fine(plan, epoch, order, first + len(rows))
        fine = np.array([True])
    kept = [row for row in rows if row.fine]
    arrays = [
        stack(list(values))
        for values in zip(*(row.arrays for row in kept), strict=True)
    ]
    present = np.stack([row.present for row in kept])
    indices = indices[fine]
    return _finished(plan, arrays, present, indices), plan.labels[indices]


def example(plan: Plan) -> tuple:
    """Returns a batch of one sample of zeros, and empty texts."""
    arrays = [
        np.array([b""], object)
        if reader.dtype == "object"
        else np.zeros([1, *(n or 1 for n in reader.shape)], reader.dtype)
        for reader in plan.loader.readers.values()
    ]
    present: np.ndarray = np.ones((1, len(arrays)), bool)
    first: np.ndarray = np.zeros(1, int)
    return _finished(plan, arrays, present, first), plan.labels[:1]


def _finished(
    plan: Plan,
    arrays: Sequence[np.ndarray],
    present: np.ndarray,
    indices: np.ndarray,
) -> dict[str, Any]:
    """Returns a batch's inputs, with what readers do with whole batches."""
    x: dict[str, Any] = {}
    readers = plan.loader.readers
    for (name, reader), value in zip(readers.items(), arrays, strict=True):
        x[name] = to_numpy(reader.batched(value)) if reader.batched else value
    if plan.marked and plan.positional:
        x["presence"] = present
    elif plan.marked:
        x["presence"] = dict(zip(readers, present.T.copy(), strict=True))
    if plan.identified:
        x["sample_id"] = indices.astype("int32")
    return x


def _next_fine(
    plan: Plan, epoch: int, order: np.ndarray, after: int
) -> tuple[list[Row], np.ndarray]:
    """Returns the next sample that is fine, in the place of a whole batch."""
    for index in np.roll(order, -after):
        [row] = read_rows(plan.loader, epoch, np.array([index]))
        plan.notes.take([row])
        if row.fine:
            return [row], np.array([index])
    raise ValueError(
        "No sample can be decoded. The first one that was skipped: "
        f"{next(iter(plan.notes.skipped.values()), '')}"
    )
