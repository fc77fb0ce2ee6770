"""Training steps on PyTorch: autograd over the variables of one update."""

import types
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import torch

from keras_mla.training import common
from keras_mla.training.common import keeping_weights as keeping_weights
from keras_mla.training.common import may_be_masked as may_be_masked
from keras_mla.training.common import row_groups as row_groups
from keras_mla.training.common import weighted_mean


def global_mean(values: Any, weights: Any | None) -> Any:
    """Mean over the batch, as `weighted_mean`: a process sees its own."""
    return values.mean(0) if weights is None else weighted_mean(values, weights)


def batch_norm(
    layer: keras.layers.BatchNormalization, x: Any, training: bool | None
) -> Any:
    """What the layer computes, by PyTorch's own kernel.

    Keras composes batch normalization of single operations, each a pass over
    the data: a third of a training step of ResNet-18.

    Args:
        layer: the layer, over the second axis.
        x: Tensor of shape `(batch, channels, ...)`.
        training: Whether to use the batch's own statistics.

    Returns:
        Tensor of the shape of `x`.
    """
    channels = x.shape[1]
    count = x.numel() // channels
    training = bool(training and layer.trainable)
    if training and count == 1:
        # PyTorch refuses a single value, Keras normalizes it to zero.
        return common.batch_norm(layer, x, training)
    mean, variance = layer.moving_mean, layer.moving_variance
    # In training the kernel gives the batch's statistics: with a momentum of
    # one, they take the place of the moving ones.
    given = [v.value.clone() if training else v.value for v in (mean, variance)]
    y = torch.nn.functional.batch_norm(
        x,
        *given,
        layer.gamma.value,
        layer.beta.value,
        training=training,
        momentum=1.0,
        eps=layer.epsilon,
    )
    if training:
        # Keras keeps the biased variance.
        given[1] = given[1] * ((count - 1) / count)
        for variable, new in zip((mean, variance), given, strict=True):
            old = variable.value * layer.momentum
            variable.assign(old + new * (1.0 - layer.momentum))
    return y


def add_to(variable: Any, value: Any) -> None:
    """Adds to a variable, such as a metric's, in a step: in place."""
    variable.value.detach().add_(value)


def dense(layer: keras.layers.Dense, x: Any) -> Any:
    """What the layer's `call` computes; of two axes, by one function."""
    kernel = layer.kernel.value
    if len(x.shape) != 2 or layer.bias is None or x.device != kernel.device:
        return layer.call(x)
    y = torch.addmm(layer.bias.value, x, kernel)
    return y if layer.activation is None else layer.activation(y)


def stack(tensors: Sequence) -> Any:
    """Stacks tensors along a new second axis."""
    return torch.stack(tensors, 1)


def vector(scalars: Sequence, dtype: str) -> Any:
    """Returns a tensor of numbers and scalar tensors."""
    wanted = getattr(torch, dtype)
    if all(torch.is_tensor(s) and s.dtype == wanted for s in scalars):
        return torch.stack(tuple(scalars))
    return common.vector(scalars, dtype)


def mean_results(metrics: Sequence) -> Sequence:
    """Results of `keras.metrics.Mean` metrics, of all at once."""
    totals = torch.stack([metric.total.value for metric in metrics])
    counts = torch.stack([metric.count.value for metric in metrics])
    return torch.where(counts == 0, 0.0, totals / counts).unbind()


def mean_of_groups(total: Any, count: Any, sizes: Sequence[int]) -> Any:
    """Returns the mean over groups of the sum of each one's means."""
    if len(sizes) != sum(sizes):
        return common.mean_of_groups(total, count, sizes)
    seen = count.value > 0
    means = torch.where(seen, total.value / count.value, 0.0)
    return means.sum() / seen.sum().clamp(min=1)


def mean_loss(values: Any) -> Any:
    """Mean of losses of samples, which is that of the whole batch."""
    return values.mean()


def matrix_vector(matrix: Any, vector: Any) -> Any:
    """Returns `matrix @ vector`, in full float32 on a GPU too."""
    return torch.mv(matrix, vector)


def zero_unless(condition: Any, values: Any) -> Any:
    """Returns `values` where `condition` is true, else zeros."""
    # Zero as a number: as a tensor it would be copied to a GPU at each step.
    return torch.where(keras.ops.convert_to_tensor(condition), values, 0.0)


@torch.no_grad()
def subtract_outer(variable: Any, vector: Any) -> None:
    """Subtracts `vector vector^T`, in place and in one pass."""
    variable.value.addr_(vector, vector, alpha=-1)


def deflated_product(matrix: Any, vector: Any, other: Any) -> Any:
    """Returns `(matrix - vector vector^T) @ other`, for symmetric `matrix`.

    From the right, since with few columns PyTorch's kernel takes half the time
    for it (and XLA's takes longer). Contiguous, which optimizers are fast with.
    """
    product = other.T @ matrix
    return product.addr_(vector @ other, vector, alpha=-1).T.contiguous()


def num_replicas() -> int:
    """One: a process sees its own batch."""
    return 1


def refuses_labels() -> bool:
    """Yes: PyTorch's cross-entropy raises an error for what is no class."""
    return True


def check_processes() -> None:
    """Raises where several processes would train a model each.

    Raises:
        RuntimeError: If `torch.distributed` runs more than one process.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    if distributed.get_world_size() > 1:
        raise RuntimeError(
            "keras_mla does not train in several processes on PyTorch yet: "
            "each process would train a model of its own. Train in one "
            "process, or use the JAX backend for several devices. Received: "
            f"{distributed.get_world_size()} processes in `torch.distributed`"
        )


def compile_step(model: keras.Model, step: Callable) -> Callable:
    """Compiles a whole training step, gradients included, as one graph.

    As on the other backends, what the model's Python attributes said when the
    graph was made holds until the model is compiled anew. Looking through all
    of them before each step, as `torch.compile` does, takes longer than a
    small step itself.

    Args:
        model: The model, of which the graph is the only user.
        step: Keras's step for all models, whose place is taken.
    """
    _model_of_step = model

    def step_of_model(_batch_of_step: Any) -> Any:
        return _model_of_step.train_step(_batch_of_step[0])

    # Graphs belong to a code object. Guards would tell those of two models
    # apart, so without these each model has a code object of its own.
    own = types.FunctionType(
        step_of_model.__code__.replace(),
        step_of_model.__globals__,
        closure=step_of_model.__closure__,
    )
    compiled = torch.compile(own, options={"guard_filter_fn": _guards_on_batch})

    def run(data: Any) -> Any:
        # For an array, as of `train_on_batch`, PyTorch can make no guard.
        data = keras.tree.map_structure(_as_tensor, data)
        # These two hold while the step runs and are restored after it.
        with torch._dynamo.config.patch(
            trace_autograd_ops=True, capture_scalar_outputs=True
        ):
            return compiled(data)

    return run


def _as_tensor(leaf: Any) -> Any:
    is_array = isinstance(leaf, np.ndarray | np.generic)
    return keras.ops.convert_to_tensor(leaf) if is_array else leaf


def _guards_on_batch(guards: Sequence) -> list[bool]:
    """Which guards to keep: of a model's step, those on batch and PyTorch.

    Where a layer breaks the graph, parts of it are compiled as functions that
    other layers share; these keep their guards.
    """
    if not any("_model_of_step" in guard.name for guard in guards):
        return [True] * len(guards)
    return [
        not guard.name or "_batch_of_step" in guard.name for guard in guards
    ]


def stateful_step(*groups: str) -> Callable:
    """Runs a step without recording gradients: variables hold their state."""
    return torch.no_grad()


def value_and_grad(
    model: keras.Model, objective: Callable, variables: list
) -> tuple[list, Any]:
    """Differentiates `objective() -> (loss, aux)` for `variables`.

    Returns:
        The gradients, zeros for a variable that the loss does not depend on,
        and `aux`.
    """
    values = [v.value for v in variables]
    # What was frozen since `compile` moves until it is called again.
    frozen = [value for value in values if not value.requires_grad]
    for value in frozen:
        value.requires_grad_(True)
    with torch.enable_grad():
        loss, aux = objective()
        gradients = torch.autograd.grad(
            loss, values, allow_unused=True, materialize_grads=True
        )
    for value in frozen:
        value.requires_grad_(False)
    if torch.compiler.is_compiling():
        # A compiled graph must not return what still asks for gradients.
        aux = keras.tree.map_structure(
            lambda leaf: leaf.detach() if torch.is_tensor(leaf) else leaf,
            aux,
        )
    return list(gradients), aux


def apply_gradients(
    model: keras.Model, gradients: list, variables: list, active: Any | None
) -> None:
    """Moves `variables` by one optimizer step, if `active` is true or None."""
    if active is None or bool(active):
        model.optimizer.apply(gradients, variables)
