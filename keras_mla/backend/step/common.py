"""Steps whose variables hold their own state."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.backend.distribution.common import weighted


def weights_leave() -> bool:
    """Returns whether a model has no weights while Keras runs it."""
    return False


def copied_weights(model: keras.Model) -> list[tuple]:
    """Returns each variable of a model, and a copy of its value."""
    return [
        (v, ops.convert_to_tensor(np.array(ops.convert_to_numpy(v.value))))
        for v in model.variables
    ]


def in_powers_of_two(compute: Callable) -> Callable:
    """Adds rows to inputs of a function that is compiled for each number.

    Args:
        compute: Function of a dict of arrays that returns a dict of arrays.

    Returns:
        A function that repeats the last row up to a power of two, and leaves
        the results of these rows out.
    """

    def run(inputs: dict) -> dict:
        rows = len(keras.tree.flatten(inputs)[0])
        more = (1 << (rows - 1).bit_length()) - rows
        if more:
            inputs = keras.tree.map_structure(
                lambda v: np.concatenate([v, v[-1:].repeat(more, 0)]), inputs
            )
        outputs = compute(inputs)
        return {name: np.asarray(v)[:rows] for name, v in outputs.items()}

    return run


@contextlib.contextmanager
def keeping_weights(model: keras.Model) -> Iterator[None]:
    """Does nothing: the weights stay in the model while it runs."""
    yield


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """Does nothing: models can be exported."""
    yield


@contextlib.contextmanager
def traced_anew(model: keras.Model, step: str) -> Iterator[None]:
    """Does nothing: a new function of a step is traced anew."""
    yield


@contextlib.contextmanager
def keeping_randomness() -> Iterator[None]:
    """Does nothing: all random numbers come from the states of variables."""
    yield


def compile_step(model: keras.Model, step: Callable) -> Callable:
    """Returns the step unchanged."""
    return step


def accumulate(
    model: keras.Model, compute: Callable, parts: Sequence[Any]
) -> tuple[list, list]:
    """Adds sums over parts of a batch, of which one is computed at a time.

    Args:
        model: The model.
        compute: Function of a part. It returns groups for
            `distribution.means`, and a structure of other tensors.
        parts: The parts, at least two `core.Batch`es.

    Returns:
        The groups with their sums, which have no weight; and for each part
        what else the function has returned.
    """
    sums, first = compute(parts[0])
    sums, others = added(sums), [first]
    for part in parts[1:]:
        # Else all parts may be computed, and kept, at once.
        more, other = compute(part.after(sums))
        sums = keras.tree.map_structure(ops.add, sums, added(more))
        others.append(other)
    return [(tensors, None, number) for tensors, number in sums], others


def added(groups: Sequence[tuple[list, Any, Any]]) -> list:
    """Returns groups as structures of tensors that can be added."""
    return [(weighted(group), group[2]) for group in groups]


def with_own_weights(
    model: keras.Model, call: Callable, signatures: Sequence[dict]
) -> Callable:
    """Returns `call`, computed with a copy of the model's weights.

    Any number of threads may call it at once, also while the model trains.

    Args:
        model: The model.
        call: Function of a dict of tensors, that returns a dict of tensors.
        signatures: dicts of the `keras.InputSpec`s that `call` may get. They
            differ in their keys.

    Returns:
        Function of a dict of NumPy arrays that returns one.
    """
    raise NotImplementedError
