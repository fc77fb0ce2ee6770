"""Kernels on JAX."""

from typing import Any

import jax

from keras_mla.backend.kernels.common import projected_gradient


def matrix_vector(matrix: Any, vector: Any) -> Any:
    """Returns `matrix @ vector`, in full float32 on a GPU too."""
    return jax.numpy.matmul(matrix, vector, precision="highest")


def after(earlier: Any, tensors: Any) -> Any:
    """Returns tensors that are used only once others are computed."""
    return jax.lax.optimization_barrier((tensors, earlier))[0]


def subtract_outer(variable: Any, vector: Any, result: Any) -> None:
    """Subtracts `vector vector^T`, once `result` is computed.

    XLA cannot know that `result` comes first, and would copy the variable at
    the beginning of each step. So the vector depends on `result` here: where
    it is not finite, nothing is subtracted.
    """
    finite = jax.numpy.isfinite(jax.numpy.sum(result))
    vector = jax.numpy.where(finite, vector, 0)
    variable.assign(variable.value - vector[:, None] * vector)


@jax.custom_vjp
def projected_product(inputs: Any, kernel: Any, P: Any) -> Any:
    """Returns `inputs @ kernel`; P multiplies the gradient of the kernel.

    Args:
        inputs: Tensor of shape `(batch, features)`.
        kernel: Tensor of shape `(features, units)`, multiplied in the dtype of
            `inputs`.
        P: float32 tensor of shape `(features, features)`, symmetric. It gets
            no gradient.
    """
    return inputs @ kernel.astype(inputs.dtype)


def _forward(inputs: Any, kernel: Any, P: Any) -> tuple[Any, tuple]:
    return projected_product(inputs, kernel, P), (inputs, kernel, P)


def _backward(saved: tuple, gradient: Any) -> tuple:
    inputs, kernel, P = saved
    of_kernel = projected_gradient(
        inputs, gradient, P, inputs.shape[0] < kernel.shape[1]
    )
    return (
        gradient @ kernel.astype(gradient.dtype).T,
        of_kernel.astype(kernel.dtype),
        None,
    )


projected_product.defvjp(_forward, _backward)
