"""Training steps on TensorFlow: gradient tape and `tf.distribute`."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_mla.training.common import add_to as add_to
from keras_mla.training.common import batch_norm as batch_norm
from keras_mla.training.common import check_processes as check_processes
from keras_mla.training.common import deflated_product as deflated_product
from keras_mla.training.common import dense as dense
from keras_mla.training.common import keeping_weights as keeping_weights
from keras_mla.training.common import may_be_masked as may_be_masked
from keras_mla.training.common import mean_of_groups as mean_of_groups
from keras_mla.training.common import mean_results as mean_results
from keras_mla.training.common import refuses_labels as refuses_labels
from keras_mla.training.common import row_groups as row_groups
from keras_mla.training.common import stack as stack
from keras_mla.training.common import subtract_outer as subtract_outer
from keras_mla.training.common import vector as vector
from keras_mla.training.common import weighted_mean, weighted_sum
from keras_mla.training.common import zero_unless as zero_unless


def num_replicas() -> int:
    """How many replicas of the current strategy share a batch."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def mean_loss(values: Any) -> Any:
    """A replica's part of the mean of losses over the global batch."""
    return tf.reduce_mean(values) / num_replicas()


def matrix_vector(matrix: Any, vector: Any) -> Any:
    """Returns `matrix @ vector`, in full float32 on a GPU too."""
    if not tf.config.list_physical_devices("GPU"):
        return tf.linalg.matvec(matrix, vector)
    # There a product of matrices has TF32's ten bits, unless all are denied it.
    return tf.reduce_sum(matrix * vector, axis=1)


def compile_step(model: keras.Model, step: Callable) -> Callable:
    """Returns the step as it is."""
    return step


def stateful_step(*groups: str) -> Callable:
    """Makes the step read each variable before it assigns the variable.

    Variables hold their own state, so the step itself stays as it is. But
    TensorFlow's dependency optimizer drops the control edge from a read to the
    assignment after it (seen in 2.21). A value that no gradient needs, such as
    a modality's own logits, may then be computed from a variable that has
    already moved. This turns the optimizer off when the step is traced, for
    the whole process.
    """

    def decorate(step: Callable) -> Callable:
        @functools.wraps(step)
        def ordered(*args: Any, **kwargs: Any) -> Any:
            tf.config.optimizer.set_experimental_options(
                {"dependency_optimization": False}
            )
            return step(*args, **kwargs)

        return ordered

    return decorate


def value_and_grad(
    model: keras.Model, objective: Callable, variables: list
) -> tuple[list, Any]:
    """Differentiates `objective() -> (loss, aux)` for `variables`.

    Returns:
        The gradients, zeros for a variable that the loss does not depend on,
        and `aux`.
    """
    with tf.GradientTape() as tape:
        loss, aux = objective()
    gradients = tape.gradient(
        loss,
        [v.value for v in variables],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return gradients, aux


def apply_gradients(
    model: keras.Model, gradients: list, variables: list, active: Any | None
) -> None:
    """Moves `variables` by one optimizer step, if `active` is true or None."""

    def step() -> None:
        model.optimizer.apply(gradients, variables)

    if active is None:
        step()
    elif num_replicas() > 1:
        # A step synchronises replicas, which no branch of a graph may do.
        raise ValueError(
            "x['presence'] is not supported under a `tf.distribute` strategy "
            f"with several replicas. Received: {num_replicas()} replicas"
        )
    else:
        tf.cond(active, step, lambda: None)


def global_mean(values: Any, weights: Any | None) -> Any:
    """Mean over the batch on all replicas, of the rows that count.

    Args:
        values: Tensor of shape `(batch, ...)`, the replica's own part.
        weights: `None`, or a bool or float tensor of shape `(batch,)`.
    """
    if num_replicas() == 1 or tf.distribute.in_cross_replica_context():
        return weighted_mean(values, weights)
    if weights is None:
        weights = tf.ones(tf.shape(values)[:1], values.dtype)
    total, count = tf.distribute.get_replica_context().all_reduce(
        tf.distribute.ReduceOp.SUM, list(weighted_sum(values, weights))
    )
    return total / tf.maximum(count, 1)
