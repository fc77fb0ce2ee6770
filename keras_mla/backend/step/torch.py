"""Steps on PyTorch: autograd over the variables of one update."""

import contextlib
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import torch
from keras import ops

from keras_mla.backend import internals
from keras_mla.backend.step.common import copied_weights


def stateful_step(*groups: str) -> Callable:
    """Runs a step without recording gradients: variables hold their state."""
    return torch.no_grad()


def value_and_grads(
    model: keras.Model, objective: Callable, variables: list
) -> tuple[list[list], Any]:
    """Differentiates `objective() -> (losses, aux)` for `variables`.

    Returns:
        A list of gradients for each loss, zeros for a variable that the loss
        does not depend on; and `aux`.
    """
    values = [v.value for v in variables]
    # Variables frozen since `compile` move until it is called again.
    frozen = [value for value in values if not value.requires_grad]
    for value in frozen:
        value.requires_grad_(True)
    with torch.enable_grad():
        losses, aux = objective()
        last = len(losses) - 1
        gradients = [
            list(
                torch.autograd.grad(
                    loss,
                    values,
                    retain_graph=index < last,
                    allow_unused=True,
                    materialize_grads=True,
                )
            )
            # PyTorch differentiates nothing that depends on no variable.
            if loss.requires_grad
            else [torch.zeros_like(value) for value in values]
            for index, loss in enumerate(losses)
        ]
    for value in frozen:
        value.requires_grad_(False)
    if torch.compiler.is_compiling():
        # A compiled graph must not return tensors that require gradients.
        aux = keras.tree.map_structure(
            lambda leaf: leaf.detach() if torch.is_tensor(leaf) else leaf,
            aux,
        )
    return gradients, aux


def apply_gradients(
    model: keras.Model, gradients: list, variables: list, active: Any | None
) -> None:
    """Moves `variables` by one optimizer step, if `active` is true or None."""
    if active is None or bool(active):
        model.optimizer.apply(gradients, variables)


@contextlib.contextmanager
def keeping_randomness() -> Iterator[None]:
    """Restores PyTorch's global generators, which unseeded dropout draws from.

    Data loaders shuffle by them too.
    """
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        yield


def compile_step(model: keras.Model, step: Callable) -> Callable:
    """Compiles a whole training step, gradients included, as one graph.

    As on the other backends, the graph keeps the values that the model's
    Python attributes had when it was made, until the model is compiled again.
    Comparing all attributes before each step, as `torch.compile` does, takes
    longer than a small step itself.

    Args:
        model: The model. No other model may use this graph.
        step: Keras's step for all models, which is replaced.
    """
    internals.let_follow(model)
    _model_of_step = model

    def step_of_model(_batch_of_step: Any) -> Any:
        return _model_of_step.train_step(_batch_of_step[0])

    # Graphs belong to a code object. Guards would tell the graphs of two models
    # apart; because they are dropped, each model has its own code object.
    own = types.FunctionType(
        step_of_model.__code__.replace(),
        step_of_model.__globals__,
        closure=step_of_model.__closure__,
    )
    compiled = torch.compile(own, options={"guard_filter_fn": _guards_on_batch})

    def run(data: Any) -> Any:
        # PyTorch cannot guard arrays, which `train_on_batch` passes.
        data = keras.tree.map_structure(_as_tensor, data)
        # The two options hold only while the step runs.
        with torch._dynamo.config.patch(
            trace_autograd_ops=True, capture_scalar_outputs=True
        ):
            return compiled(data)

    return run


def _as_tensor(leaf: Any) -> Any:
    is_array = isinstance(leaf, np.ndarray | np.generic)
    return keras.ops.convert_to_tensor(leaf) if is_array else leaf


def _guards_on_batch(guards: Sequence) -> list[bool]:
    """Returns which guards of a step to keep: those on batch and PyTorch.

    If a layer breaks the graph, parts of it are compiled as functions that
    other layers share. Such functions keep all guards.
    """
    if not any("_model_of_step" in guard.name for guard in guards):
        return [True] * len(guards)
    return [
        not guard.name or "_batch_of_step" in guard.name for guard in guards
    ]


def with_own_weights(
    model: keras.Model, call: Callable, signatures: Sequence[dict]
) -> Callable:
    """Returns `call`, computed with a copy of the model's weights."""
    checked = keras.StatelessScope(copied_weights(model), collect_losses=True)
    # Eager steps hold the interpreter. Threads that alternate in them take
    # twice as long as one after the other.
    turn = threading.Lock()

    def run(inputs: dict) -> dict:
        tensors = keras.tree.map_structure(ops.convert_to_tensor, inputs)
        # A scope belongs to one thread. To check all weights takes its time.
        scope = keras.StatelessScope(collect_losses=True)
        scope.state_mapping.update(checked.state_mapping)
        with turn, torch.no_grad(), scope:
            outputs = call(tensors)
        return keras.tree.map_structure(ops.convert_to_numpy, outputs)

    return run


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """Lets the tracer of ONNX export layer normalization.

    With a batch size that is to stay dynamic, all sizes are traced, and the
    exporter takes no traced size for the shape that is normalized.
    """
    original = torch.nn.functional.layer_norm

    def of_plain_sizes(
        x: Any, shape: Sequence, *args: Any, **kwargs: Any
    ) -> Any:
        return original(x, [int(size) for size in shape], *args, **kwargs)

    torch.nn.functional.layer_norm = of_plain_sizes
    try:
        yield
    finally:
        torch.nn.functional.layer_norm = original
