from collections.abc import Iterator
from typing import Any

import keras


def leaves(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """The layers of a `keras.Sequential` in order, nested ones unpacked.

    Any other layer is its own only leaf, a subclass of Sequential too: it may
    do more than call its layers.
    """
    if type(layer) is keras.Sequential:
        for part in layer.layers:
            yield from leaves(part)
    else:
        yield layer


def run(layer: keras.layers.Layer, inputs: Any, training: bool | None) -> Any:
    """Calls a layer, a built `keras.Sequential` leaf by leaf.

    The result is that of `layer(inputs)`, without the time that each level of
    nesting costs where steps run eagerly.
    """
    if not layer.built:
        return layer(inputs, training=training)
    for leaf in leaves(layer):
        inputs = leaf(inputs, training=training)
    return inputs
