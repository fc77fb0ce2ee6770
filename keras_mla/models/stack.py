from collections.abc import Iterator
from typing import Any

import keras

from keras_mla import training as backend
from keras_mla.layers.fusion import Fusion

# Where a `torch.nn.Module` keeps what users register on it.
HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


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
    nesting costs where steps run eagerly. Inputs of another rank or dtype than
    declared go through the Sequential itself, which adapts them.
    """
    if not (layer.built and _as_declared(layer, inputs)) or _hooked(layer):
        return layer(inputs, training=training)
    if type(layer) is not keras.Sequential:
        return call(layer, inputs, training)
    for part in layer.layers:
        inputs = run(part, inputs, training)
    return inputs


def unbuilt_copy(layer: keras.layers.Layer, name: str) -> keras.layers.Layer:
    """Returns a layer of the same configuration, for inputs of any width."""

    def unbuilt(config: Any) -> Any:
        if isinstance(config, dict):
            return {
                key: unbuilt(value)
                for key, value in config.items()
                if key not in ("build_config", "build_input_shape")
            }
        if isinstance(config, list | tuple):
            return [
                unbuilt(part)
                for part in config
                if not (
                    isinstance(part, dict)
                    and part.get("class_name") == "InputLayer"
                )
            ]
        return config

    config = unbuilt(layer.get_config())
    return type(layer).from_config({**config, "name": name})


def call(layer: keras.layers.Layer, inputs: Any, training: bool | None) -> Any:
    """Calls one layer; a plain Dense or a fusion by its computation alone.

    `Layer.__call__` casts, masks, builds and regularises, which takes three
    times as long as a small Dense itself where steps run eagerly.
    """
    if _needs_no_more(layer, inputs):
        if isinstance(layer, Fusion):
            return layer.call(inputs)
        return backend.dense(layer, inputs)
    return layer(inputs, training=training)


def _needs_no_more(layer: keras.layers.Layer, inputs: Any) -> bool:
    """Whether its computation is all that calling the layer would do."""
    if (
        not layer.built
        or not keras.ops.is_tensor(inputs)
        or backend.may_be_masked(inputs)
        or _hooked(layer)
        or keras.distribution.distribution() is not None
    ):
        return False
    if isinstance(layer, Fusion):  # It casts its inputs by itself.
        return _dtype(layer.temperature.value) == layer.variable_dtype
    if type(layer) is not keras.layers.Dense or layer.lora_enabled:
        return False
    kernel, dtype = layer.kernel, layer.variable_dtype
    return (
        # Neither cast, nor to be refused. (In a model of half precision, the
        # kernel may appear in it, which `Layer.__call__` would change.)
        layer.compute_dtype == dtype
        and dtype == _dtype(kernel) == _dtype(inputs)
        and kernel.shape[0] == inputs.shape[-1]
        # Nothing beside the computation.
        and layer.quantization_mode is None
        and layer.activity_regularizer is None
    )


def _hooked(layer: keras.layers.Layer) -> bool:
    """Tells whether anything waits, on PyTorch, for the layer to be called."""
    return any(getattr(layer, hooks, None) for hooks in HOOKS)


def _dtype(tensor: Any) -> str:
    return keras.backend.standardize_dtype(tensor.dtype)


def _as_declared(layer: keras.layers.Layer, inputs: Any) -> bool:
    if type(layer) is not keras.Sequential or not layer.inputs:
        return True
    (declared,) = layer.inputs
    return (
        len(inputs.shape) == len(declared.shape)
        and _dtype(inputs) == declared.dtype
    )
