"""Arrays of NumPy and tensors of the backends."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np


def is_tensor(value: Any) -> bool:
    """Returns whether a value is a TensorFlow tensor, without importing it."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and bool(tf.is_tensor(value))


def to_numpy(value: Any) -> Any:
    """Turns tensors of any backend into NumPy, also in dicts and tuples."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Mapping):
        return {name: to_numpy(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(map(to_numpy, value))
    if hasattr(value, "detach"):  # PyTorch's tensors, on any device.
        value = value.detach().cpu()
    return np.asarray(value)


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Returns a new float32 array at an address that TensorFlow can share.

    TensorFlow copies an array that does not begin at a multiple of 64 bytes.
    """
    count = int(np.prod(shape, dtype=np.int64))
    space: np.ndarray = np.empty(count + 16, np.float32)
    first = -space.ctypes.data % 64 // 4
    return space[first : first + count].reshape(shape)
