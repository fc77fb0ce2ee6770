"""Training steps on PyTorch: autograd over the variables of one update."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import torch

from keras_mla.training.common import weighted_mean

global_mean = weighted_mean


def num_replicas() -> int:
    """One: a process sees its own batch."""
    return 1


def compile_step(step: Callable) -> Callable:
    """Lets `torch.compile` see a whole step, gradients included, as one graph.

    The two settings hold while the step runs and are restored after it.
    """

    @functools.wraps(step)
    def run(data: Any) -> Any:
        with torch._dynamo.config.patch(
            trace_autograd_ops=True, capture_scalar_outputs=True
        ):
            return step(data)

    return run


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
    with torch.enable_grad():
        loss, aux = objective()
        gradients = torch.autograd.grad(
            loss,
            [v.value for v in variables],
            allow_unused=True,
            materialize_grads=True,
        )
    if torch.compiler.is_compiling():
        # A compiled graph must not return what still asks for gradients.
        aux = keras.tree.map_structure(
            lambda leaf: None if leaf is None else leaf.detach(), aux
        )
    return list(gradients), aux


def apply_gradients(
    model: keras.Model, gradients: list, variables: list, active: Any | None
) -> None:
    """Moves `variables` by one optimizer step, if `active` is true or None."""
    if active is None or bool(active):
        model.optimizer.apply(gradients, variables)
