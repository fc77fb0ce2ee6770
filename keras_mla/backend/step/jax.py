"""Steps on JAX, which pass the values of variables in and out as state."""

import collections
import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import keras

from keras_mla.backend import internals
from keras_mla.backend.step import common
from keras_mla.backend.step.common import copied_weights, in_powers_of_two


def stateful_step(*groups: str) -> Callable:
    """Passes the named groups of variables in and out of a step.

    Args:
        *groups: Names of the model's variable lists, in the order in which
            Keras's JAX trainer passes their values.
    """

    def decorate(step: Callable) -> Callable:
        @functools.wraps(step)
        def stateless(
            model: keras.Model, state: Sequence, data: Any
        ) -> tuple[Any, tuple]:
            variables = [_variables(model, group) for group in groups]
            mapping = [
                pair
                for references, values in zip(variables, state, strict=True)
                for pair in zip(references, values, strict=True)
            ]
            with keras.StatelessScope(mapping, collect_losses=True) as scope:
                logs = step(model, data)
            new_state = tuple(
                [scope.get_current_value(v) for v in references]
                for references in variables
            )
            return logs, new_state

        return stateless

    return decorate


def value_and_grads(
    model: keras.Model, objective: Callable, variables: list
) -> tuple[list[list], Any]:
    """Differentiates `objective() -> (losses, aux)` for `variables`.

    Returns:
        A list of gradients for each loss, zeros for a variable that the loss
        does not depend on; and `aux`, in which dicts keep their order.
    """
    state = _state(model)
    values = [v.value for v in state]

    def call(differentiated: list) -> tuple[Any, Any]:
        mapping = [
            *zip(state, values, strict=True),
            *zip(variables, differentiated, strict=True),
        ]
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            losses, aux = objective()
            aux = _ordered(aux)
        updated = [
            scope.get_current_value(v) for v in model.non_trainable_variables
        ]
        return list(losses), (aux, updated)

    losses, pull_back, (aux, updated) = jax.vjp(
        call, [v.value for v in variables], has_aux=True
    )
    zeros = [jax.numpy.zeros_like(loss) for loss in losses]
    gradients = []
    for index, zero in enumerate(zeros):
        chosen = [
            *zeros[:index],
            jax.numpy.ones_like(zero),
            *zeros[index + 1 :],
        ]
        (of_loss,) = pull_back(chosen)
        gradients.append(of_loss)
    for variable, value in zip(
        model.non_trainable_variables, updated, strict=True
    ):
        variable.assign(value)
    return gradients, aux


def accumulate(
    model: keras.Model, compute: Callable, parts: Sequence[Any]
) -> tuple[list, list]:
    """Adds sums over parts of a batch, of which one is computed at a time.

    Parts of equal sizes after the first one are a loop, so that XLA cannot
    compute several of them at once.
    """
    others = [part.by_rows() for part in parts[1:]]
    shapes = [[leaf.shape for leaf in jax.tree.leaves(o)] for o in others]
    if len(others) < 2 or any(shape != shapes[0] for shape in shapes):
        return common.accumulate(model, compute, parts)
    sums, result = compute(parts[0])
    sums = common.added(sums)
    variables = _state(model)
    values = [v.value for v in variables]
    moving = model.non_trainable_variables
    kept = {id(v) for v in moving}

    def body(carry: tuple, rows: Any) -> tuple[tuple, Any]:
        sums, moved = carry
        now = iter(moved)
        mapping = [
            (v, next(now) if id(v) in kept else value)
            for v, value in zip(variables, values, strict=True)
        ]
        part = dataclasses.replace(parts[1], **_ordered(rows))
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            more, other = compute(part)
            other = _ordered(other)
        sums = jax.tree.map(jax.numpy.add, sums, common.added(more))
        return (sums, [scope.get_current_value(v) for v in moving]), other

    rows = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *others)
    carry = sums, [v.value for v in moving]
    (sums, moved), found = jax.lax.scan(body, carry, rows)
    for variable, value in zip(moving, moved, strict=True):
        variable.assign(value)
    results = [
        jax.tree.map(lambda leaf, index=index: leaf[index], found)
        for index in range(len(others))
    ]
    groups = [(tensors, None, number) for tensors, number in sums]
    return groups, [result, *results]


def apply_gradients(
    model: keras.Model, gradients: list, variables: list, active: Any | None
) -> None:
    """Moves `variables` by one optimizer step, if `active` is true or None."""
    optimizer = model.optimizer
    by_variable = {id(v): g for v, g in zip(variables, gradients, strict=True)}
    trainable = internals.optimized_variables(optimizer)
    slots = optimizer.variables
    values = [v.value for v in trainable], [v.value for v in slots]

    def step() -> tuple[list, list]:
        # `None`, not zeros, for all other variables: the optimizer then leaves
        # them and their slots alone. It also warns, which is meant for
        # mistakes.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optimizer.stateless_apply(
                values[1],
                [by_variable.get(id(v)) for v in trainable],
                values[0],
            )

    if active is None or not isinstance(active, jax.core.Tracer):
        moved = step() if active is None or bool(active) else values
    else:
        moved = jax.lax.cond(active, step, lambda: values)
    for references, new, old in zip(
        (trainable, slots), moved, values, strict=True
    ):
        for variable, value, before in zip(references, new, old, strict=True):
            if value is not before:
                variable.assign(value)


def _state(model: keras.Model) -> list:
    """Returns all variables that a pass may read or move."""
    groups = (
        "trainable_variables",
        "non_trainable_variables",
        "optimizer_variables",
    )
    return [v for group in groups for v in _variables(model, group)]


def _variables(model: keras.Model, group: str) -> list:
    if group == "optimizer_variables":
        optimizer = getattr(model, "optimizer", None)
        return optimizer.variables if optimizer else []
    return getattr(model, group)


@contextlib.contextmanager
def traced_anew(model: keras.Model, step: str) -> Iterator[None]:
    """Gives a model's step an identity of its own.

    Keras compiles the bound method, and all bound methods of a model are equal.
    JAX would take what it has traced for an earlier one that is still alive,
    such as that of another stage.

    Args:
        model: The model.
        step: Name of the method, `"train_step"` or `"test_step"`.
    """
    bound = getattr(model, step)
    # Not `setattr`, which Keras watches.
    vars(model)[step] = lambda *args: bound(*args)
    try:
        yield
    finally:
        del vars(model)[step]


@contextlib.contextmanager
def keeping_weights(model: keras.Model) -> Iterator[None]:
    """Gives a model its weights back if an error interrupts it.

    Keras takes the values out of a model's variables while `fit`, `evaluate`
    and `predict` run. An error inside would leave the model without them.
    """
    model.jax_state_sync()  # A callback of `fit` may call this.
    variables = [
        *model.variables,
        *_variables(model, "optimizer_variables"),
        *model.metrics_variables,
    ]
    held = [(v, v._value) for v in variables if v._value is not None]
    model._jax_state = None  # An earlier call may have left it.
    try:
        yield
    except BaseException:
        # Take the last step's values, unless the failed step consumed them.
        with contextlib.suppress(RuntimeError):
            model.jax_state_sync()
        model._jax_state = None
        for variable, value in held:
            # A step that ran since then has consumed the value.
            if variable._value is None and not value.is_deleted():
                variable.assign(value)
        raise


def _ordered(tree: Any) -> Any:
    """Makes dicts ordered, because JAX sorts the keys of plain dicts."""
    if isinstance(tree, dict):
        return collections.OrderedDict(
            (key, _ordered(value)) for key, value in tree.items()
        )
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*map(_ordered, tree))
    if isinstance(tree, list | tuple):
        return type(tree)(map(_ordered, tree))
    return tree


def weights_leave() -> bool:
    """Returns whether a model has no weights while Keras runs it."""
    return True


def with_own_weights(
    model: keras.Model, call: Callable, signatures: Sequence[dict]
) -> Callable:
    """Returns `call`, computed with a copy of the model's weights.

    JAX compiles a function for each shape. Rows are therefore added, copies of
    the last one, up to a power of two.
    """
    variables, values = zip(*copied_weights(model), strict=True)

    @jax.jit
    def compiled(values: Sequence, inputs: dict) -> dict:
        mapping = zip(variables, values, strict=True)
        with keras.StatelessScope(list(mapping), collect_losses=True):
            return call(inputs)

    return in_powers_of_two(lambda inputs: compiled(values, inputs))
