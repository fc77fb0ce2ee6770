"""Kernels on TensorFlow."""

from typing import Any

import keras
import tensorflow as tf


def matrix_vector(matrix: Any, vector: Any) -> Any:
    """Returns `matrix @ vector`, in full float32 on a GPU too."""
    if not tf.config.list_physical_devices("GPU"):
        return tf.linalg.matvec(matrix, vector)
    # On a GPU a product of matrices has TF32's ten bits, unless that is turned
    # off for all products.
    return tf.reduce_sum(matrix * vector, axis=1)


def reduced_loss(loss: Any, y: Any, logits: Any) -> Any:
    """Returns the mean over a replica's own rows."""
    return unscaled(loss(y, logits))


def unscaled(loss: Any) -> Any:
    """Returns a loss that Keras has reduced, over a replica's own rows.

    Keras divides it by the number of replicas.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss * replicas


def after(earlier: Any, tensors: Any) -> Any:
    """Returns tensors that are used only once others are computed."""
    with tf.control_dependencies(keras.tree.flatten(earlier)):
        return keras.tree.map_structure(
            lambda t: None if t is None else tf.identity(t), tensors
        )
