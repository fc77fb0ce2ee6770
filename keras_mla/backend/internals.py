"""Access to private names of Keras, in one place."""

from collections.abc import Iterable
from typing import Any

import keras
from keras.src.trainers.compile_utils import CompileMetrics as CompileMetrics


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns a layer and all layers inside it, each once."""
    return layer._flatten_layers()


def optimized_variables(optimizer: Any) -> list:
    """Returns the variables that an optimizer was built with, in its order."""
    return list(
        getattr(optimizer, "inner_optimizer", optimizer)._trainable_variables
    )


def moving_variables(
    layers: Iterable[keras.layers.Layer], model: keras.Model
) -> list:
    """Returns the variables that a training call of layers itself moves.

    The variables are statistics of trainable layers, such as
    BatchNormalization's, and states of seed generators. The variables of
    frozen layers, which may be large, are left out. So are the model's own
    variables, which a method moves with the optimizer's step.

    Args:
        layers: Layers that are called.
        model: The model that they belong to.
    """
    found: dict[int, Any] = {}
    for layer in layers:
        for part in sublayers(layer):
            if part is model:
                continue
            states = [generator.state for generator in part._seed_generators]
            held = part._non_trainable_variables if part.trainable else []
            found.update({id(v): v for v in [*held, *states]})
    return list(found.values())


def find_parameters(layer: keras.layers.Layer) -> None:
    """Registers weights that were made outside of `build` with PyTorch."""
    layer._post_build()


def replace(layer: keras.layers.Layer, name: str, value: Any) -> None:
    """Replaces a layer that is an attribute of a built layer."""
    tracker = layer._tracker
    locked = tracker.locked
    tracker.unlock()
    tracker.untrack(getattr(layer, name))
    setattr(layer, name, value)
    if locked:
        tracker.lock()
