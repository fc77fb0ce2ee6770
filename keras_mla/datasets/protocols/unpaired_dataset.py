"""Arrays of several modalities that do not belong together, in batches."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np


class UnpairedDataset(keras.utils.PyDataset):
    """Batches in which each modality has samples and labels of its own.

    The data may have no sample with two modalities, or modalities from
    different collections. Each batch is `({name: x}, {name: y})` with
    `batch_size` samples of every modality. An epoch lasts until the largest
    modality has been seen once. Smaller modalities start over, in a new
    order, as often as it takes.

    Samples of smaller modalities come several times. So evaluate on paired
    data, or evaluate each modality by itself: `model.unimodal(name)`.

    NumPy's global generator draws the order, so that
    `keras.utils.set_random_seed` and `keras_mla.callbacks.EpochSeed` fix it.

    Args:
        data: dict of modality name to `(x, y)` or `(x, y, sample_weight)`,
            arrays or lists of one length within a modality. `x` may be a dict
            of them.
        batch_size: int, or a dict of modality name to int. Samples of each
            modality in a batch. Defaults to `32`.
        shuffle: bool. Whether to draw a new order for each epoch. Defaults to
            `True`.
        **kwargs: Arguments of `keras.utils.PyDataset`, such as `workers`.

    Raises:
        ValueError: If a modality's arrays differ in length or are empty, a
            batch size is below 1, or only some modalities have sample
            weights.

    Example:
    >>> images, captions = np.zeros((100, 64)), np.zeros((30, 20))
    >>> dataset = keras_mla.UnpairedDataset(
    ...     {
    ...         "image": (images, np.zeros(100, "int32")),
    ...         "text": (captions, np.zeros(30, "int32")),
    ...     },
    ...     batch_size=10,
    ... )
    >>> len(dataset)
    10
    >>> x, y = dataset[0]
    >>> x["text"].shape, y["text"].shape
    ((10, 20), (10,))
    """

    def __init__(
        self,
        data: Mapping[str, tuple],
        batch_size: int | Mapping[str, int] = 32,
        shuffle: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(batch_size, Mapping):
            batch_size = dict.fromkeys(data, batch_size)
        self.data = {
            name: tuple(map(_as_arrays, arrays))
            for name, arrays in data.items()
        }
        self.batch_size = dict(batch_size)
        self.shuffle = shuffle
        self.sizes = {}
        for name, arrays in self.data.items():
            lengths = {len(a) for a in keras.tree.flatten(arrays)}
            if len(lengths) != 1 or not min(lengths):
                raise ValueError(
                    f"The arrays of modality {name!r} must be of one length, "
                    f"at least 1. Received: lengths={sorted(lengths)}"
                )
            if self.batch_size.get(name, 0) < 1:
                raise ValueError(
                    "`batch_size` must be at least 1 for each modality. "
                    f"Received: batch_size={batch_size}"
                )
            self.sizes[name] = lengths.pop()
        self.has_weights = {len(a) == 3 for a in self.data.values()} == {True}
        if not self.has_weights and 3 in {len(a) for a in self.data.values()}:
            raise ValueError(
                "Give sample weights for each modality or for none. Received: "
                + ", ".join(f"{n}: {len(a)} arrays" for n, a in data.items())
            )
        self._orders: dict[str, np.ndarray] = {}
        self.on_epoch_begin()

    def __len__(self) -> int:
        """Returns the number of batches in an epoch."""
        return max(
            math.ceil(size / self.batch_size[name])
            for name, size in self.sizes.items()
        )

    def on_epoch_begin(self) -> None:
        """Draws the orders of an epoch."""
        for name, size in self.sizes.items():
            needed = len(self) * self.batch_size[name]
            rounds = range(math.ceil(needed / size))
            order = np.concatenate([self._round(size) for _ in rounds])
            # The largest modality is seen once: its last batch is smaller.
            longest = len(self) == math.ceil(size / self.batch_size[name])
            self._orders[name] = order[: size if longest else needed]

    def __getitem__(self, index: int) -> tuple:
        """Returns batch `index` as `(x, y)` or `(x, y, sample_weight)`."""
        if not 0 <= index < len(self):
            raise IndexError(f"Batch {index} of {len(self)}")
        parts: tuple[dict, ...] = ({}, {}, {})
        for name, arrays in self.data.items():
            size = self.batch_size[name]
            rows = self._orders[name][index * size : (index + 1) * size]
            for part, values in zip(parts, arrays, strict=False):
                part[name] = keras.tree.map_structure(
                    lambda array, rows=rows: array[rows], values
                )
        return parts if self.has_weights else parts[:2]

    def _round(self, size: int) -> np.ndarray:
        return np.random.permutation(size) if self.shuffle else np.arange(size)


def _as_arrays(value: Any) -> Any:
    """Makes arrays of lists, of numbers or of texts."""
    if isinstance(value, Mapping):
        return {name: _as_arrays(part) for name, part in value.items()}
    return np.asarray(value)
