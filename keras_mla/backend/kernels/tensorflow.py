"""Kernels on TensorFlow."""

from typing import Any

import keras
import tensorflow as tf

from keras_mla.backend.kernels.common import projected_gradient


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


def projected_product(inputs: Any, kernel: Any, P: Any) -> Any:
    """Returns `inputs @ kernel`; P multiplies the gradient of the kernel.

    Args:
        inputs: Tensor of shape `(batch, features)`.
        kernel: Tensor of shape `(features, units)`, multiplied in the dtype of
            `inputs`.
        P: float32 tensor of shape `(features, features)`, symmetric. It gets
            no gradient.
    """
    P = tf.stop_gradient(tf.convert_to_tensor(P))

    @tf.custom_gradient
    def product(inputs: Any, kernel: Any) -> tuple:
        def backward(gradient: Any) -> tuple:
            # Most data sets leave the size of a batch open.
            rows = inputs.shape[0]
            if rows is None:
                rows = tf.shape(inputs)[0]
            fewer_rows = rows < kernel.shape[1]
            if isinstance(fewer_rows, bool):
                of_kernel = projected_gradient(inputs, gradient, P, fewer_rows)
            else:
                of_kernel = tf.cond(
                    fewer_rows,
                    lambda: projected_gradient(inputs, gradient, P, True),
                    lambda: projected_gradient(inputs, gradient, P, False),
                )
            of_inputs = tf.matmul(
                gradient, tf.cast(kernel, gradient.dtype), transpose_b=True
            )
            return of_inputs, tf.cast(of_kernel, kernel.dtype)

        return tf.matmul(inputs, tf.cast(kernel, inputs.dtype)), backward

    return product(inputs, tf.convert_to_tensor(kernel))
