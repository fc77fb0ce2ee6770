"""Steps on TensorFlow: gradient tape and `tf.distribute`."""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_mla.backend import internals
from keras_mla.backend.distribution.tensorflow import num_replicas
from keras_mla.backend.step.common import copied_weights, in_powers_of_two


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


def value_and_grads(
    model: keras.Model, objective: Callable, variables: list
) -> tuple[list[list], Any]:
    """Differentiates `objective() -> (losses, aux)` for `variables`.

    Returns:
        A list of gradients for each loss, zeros for a variable that the loss
        does not depend on; and `aux`.
    """
    with tf.GradientTape(persistent=True) as tape:
        losses, aux = objective()
    values = [v.value for v in variables]
    gradients = [
        tape.gradient(
            loss,
            values,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        for loss in losses
    ]
    return gradients, aux


def apply_gradients(
    model: keras.Model, gradients: list, variables: list, active: Any | None
) -> None:
    """Moves `variables` by one optimizer step, if `active` is true or None."""

    def step() -> None:
        model.optimizer.apply(gradients, variables)

    if num_replicas() == 1:
        if active is None:
            step()
        else:
            tf.cond(active, step, lambda: None)
        return
    # A step synchronises replicas, which a branch of a graph cannot do.
    kept = [] if active is None else [*variables, *model.optimizer.variables]
    before = [tf.identity(v.value) for v in kept]
    with internals.summed_gradients(model.optimizer):
        step()
    for variable, old in zip(kept, before, strict=True):
        variable.assign(tf.where(active, variable.value, old))


def with_own_weights(
    model: keras.Model, call: Callable, signatures: Sequence[dict]
) -> Callable:
    """Returns `call`, computed with a copy of the model's weights."""
    mapping = copied_weights(model)

    def plain(inputs: dict) -> dict:
        with keras.StatelessScope(mapping, collect_losses=True):
            return call(inputs)

    functions, by_xla = {}, internals.supports_jit(model)
    for signature in signatures:
        specs = keras.tree.map_structure(
            lambda spec: tf.TensorSpec(spec.shape, spec.dtype), signature
        )
        made = _by_xla(plain, specs) if by_xla else None
        if made is None:
            by_xla = False
            made = tf.function(plain, autograph=False)
            made = made.get_concrete_function(specs)
        functions[frozenset(specs)] = made

    # Threads that alternate in the interpreter take longer than in turn.
    turn = threading.Lock()

    def run(inputs: dict) -> dict:
        tensors = keras.tree.map_structure(tf.constant, inputs)
        with turn:
            outputs = functions[frozenset(tensors)](tensors)
        return {name: value.numpy() for name, value in outputs.items()}

    # XLA compiles for each number of rows.
    return in_powers_of_two(run) if by_xla else run


def _by_xla(function: Callable, specs: dict) -> Callable | None:
    """Returns a function compiled by XLA, if it can be, and once for a shape.

    Small operations, of which a model of several modalities has many, take
    less time then. XLA would compile anew for each length of a text.
    """
    leaves = keras.tree.flatten(specs)
    if any(None in s.shape[1:] or s.dtype == tf.string for s in leaves):
        return None
    made = tf.function(function, autograph=False, jit_compile=True)
    try:
        compiled = made.get_concrete_function(specs)
        compiled(
            keras.tree.map_structure(
                lambda spec: tf.zeros([1, *spec.shape[1:]], spec.dtype), specs
            )
        )
    except (tf.errors.OpError, ValueError, TypeError):
        return None
    return compiled
