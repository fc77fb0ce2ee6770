"""Distribution by `tf.distribute`: each replica sees its part of a batch."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_mla.backend.distribution import common
from keras_mla.backend.distribution.common import weighted_mean, weighted_sum


def num_replicas() -> int:
    """Returns the number of replicas of the current strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def check_placed(model: keras.Model) -> None:
    """Raises if workers of several machines share batches.

    Raises:
        ValueError: Under a strategy of several workers.
    """
    strategy = model.distribute_strategy
    if isinstance(strategy, tf.distribute.MirroredStrategy) or not isinstance(
        strategy, _SEVERAL_WORKERS
    ):
        return
    raise ValueError(
        f"Keras 3 does not train under {type(strategy).__name__} "
        "(https://github.com/keras-team/keras/issues/20585). For several GPUs "
        "of a machine, use `tf.distribute.MirroredStrategy`. For several "
        "machines, use the JAX backend (`keras.distribution`) or the PyTorch "
        "backend (`torchrun`); a saved model loads there."
    )


_SEVERAL_WORKERS = (
    tf.distribute.MultiWorkerMirroredStrategy,
    tf.distribute.experimental.MultiWorkerMirroredStrategy,
    tf.distribute.ParameterServerStrategy,
    tf.distribute.experimental.ParameterServerStrategy,
)


def coupled() -> bool:
    """Returns whether layers may couple the rows of several replicas."""
    return num_replicas() > 1


def total(tensors: Sequence[Any]) -> list:
    """Returns the sums of tensors over all replicas, sent in one message."""
    if num_replicas() == 1 or tf.distribute.in_cross_replica_context():
        return list(tensors)
    return tf.distribute.get_replica_context().all_reduce(
        tf.distribute.ReduceOp.SUM, list(tensors)
    )


def means(groups: Sequence[tuple[list, Any, Any]]) -> list[list]:
    """Returns means over all replicas, sent in one message."""
    return common.means(groups, total)


def global_mean(values: Any, weights: Any | None) -> Any:
    """Returns the mean over the batch on all replicas, of the counted rows.

    Args:
        values: Tensor of shape `(batch, ...)`, the replica's own part.
        weights: `None`, or a bool tensor of shape `(batch,)`.

    Returns:
        Tensor of shape `values.shape[1:]`; zeros if no row is counted.
    """
    if num_replicas() == 1 or tf.distribute.in_cross_replica_context():
        return weighted_mean(values, weights)
    sums, count = total(weighted_sum(values, weights))
    return sums / tf.maximum(count, 1)
