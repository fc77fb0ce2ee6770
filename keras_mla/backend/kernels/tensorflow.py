"""Kernels on TensorFlow."""

from typing import Any

import tensorflow as tf


def matrix_vector(matrix: Any, vector: Any) -> Any:
    """Returns `matrix @ vector`, in full float32 on a GPU too."""
    if not tf.config.list_physical_devices("GPU"):
        return tf.linalg.matvec(matrix, vector)
    # On a GPU a product of matrices has TF32's ten bits, unless that is turned
    # off for all products.
    return tf.reduce_sum(matrix * vector, axis=1)
