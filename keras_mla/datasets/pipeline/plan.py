"""What both engines are given."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_mla.datasets.listing.sample import Sample
from keras_mla.datasets.pipeline import order
from keras_mla.datasets.pipeline.loader import Loader, Notes


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `pipeline.build` has checked, for either engine.

    Args:
        loader: `Loader`. It reads samples.
        labels: array `(samples, ...)`.
        batch_size: int, or `None` for single samples.
        workers: int, or `None`. Number of workers.
        shuffle: bool. Whether each epoch has an order of its own.
        marked: bool. Whether the inputs hold `"presence"`.
        positional: bool. Whether `"presence"` is one array, not a dict.
        identified: bool. Whether the inputs hold `"sample_id"`.
        epochs: `Epochs`. It counts epochs.
        notes: `Notes`. It keeps what could not be decoded.
    """

    loader: Loader
    labels: np.ndarray
    batch_size: int | None
    workers: int | None
    shuffle: bool
    marked: bool
    positional: bool
    identified: bool
    epochs: order.Epochs
    notes: Notes

    def order(self, epoch: int) -> np.ndarray:
        """Returns the indices of the samples in the order of an epoch."""
        count = len(self.labels)
        if not self.shuffle:
            return np.arange(count)
        return order.permutation(self.loader.seed, epoch, count)


def stack_labels(samples: Sequence[Sample]) -> np.ndarray:
    """Returns the labels of samples as one array.

    Returns:
        int32 `(samples,)` of integers, float32 `(samples,)` of other numbers,
        or float32 `(samples, k)` of sequences of numbers.

    Raises:
        ValueError: If labels are not of one kind.
    """
    arrays = [np.asarray(sample.label) for sample in samples]
    for sample, array in zip(samples, arrays, strict=True):
        if array.dtype.kind not in "biuf" or array.shape != arrays[0].shape:
            raise ValueError(
                f"{sample.source}: the label of sample {sample.id!r} must be "
                "a number or a sequence of numbers, as many as the first "
                f"sample has. Received: label={sample.label!r}"
            )
    stacked = np.stack(arrays)
    whole = stacked.ndim == 1 and stacked.dtype.kind in "biu"
    return stacked.astype(np.int32 if whole else np.float32)
