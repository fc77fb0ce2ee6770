"""The building of a model: when, for which inputs, and from which config."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_mla.backend import internals


class BuiltLast(type):
    """Builds a model after the outermost constructor has ended.

    A subclass of any method can therefore make its own weights and layers
    after `super().__init__`.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Makes a model, and builds it if its encoders know their inputs."""
        model = super().__call__(*args, **kwargs)
        model.build_if_possible()
        return model


# === Signatures: nested dicts and lists of {"shape": ..., "dtype": ...} ===


def is_tensor(signature: Any) -> bool:
    """Returns whether a signature is that of one tensor."""
    return isinstance(signature, dict) and set(signature) == {"shape", "dtype"}


def signature_of(inputs: Any) -> Any:
    """Returns the shapes, without batch sizes, and dtypes of nested tensors."""
    if isinstance(inputs, dict):
        return {name: signature_of(value) for name, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return [signature_of(value) for value in inputs]
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    if "float" in dtype:
        # Not the precision of one batch: encoders cast as needed.
        dtype = keras.config.floatx()
    # A size that is not an int is a tracer's placeholder for an unknown one.
    sizes = [n if isinstance(n, int) else None for n in inputs.shape[1:]]
    return {"shape": [None, *sizes], "dtype": dtype}


def ends_of(encoder: keras.layers.Layer) -> tuple[Any, Any]:
    """Returns the symbolic input and output that an encoder was made with.

    Both are `None` if the encoder has no symbolic input, or several.
    """
    if isinstance(encoder, keras.Sequential):
        if not (encoder.built and encoder.inputs):
            return None, None
        return encoder.inputs[0], encoder.outputs[0]
    try:
        return encoder.input, encoder.output
    except (AttributeError, ValueError):  # None, or several.
        return None, None


def plain(signature: Any) -> Any:
    """Returns a signature in plain dicts and lists, for JSON."""
    if isinstance(signature, dict):
        return {name: plain(value) for name, value in signature.items()}
    if isinstance(signature, list | tuple):
        return [plain(value) for value in signature]
    return signature


def map_signature(make: Callable, signature: Any, name: str = "") -> Any:
    """Calls `make(shape, dtype, name)` for each tensor of a signature."""
    if is_tensor(signature):
        return make(
            shape=tuple(signature["shape"]),
            dtype=signature["dtype"],
            name=name,
        )
    if isinstance(signature, list | tuple):
        return [
            map_signature(make, value, f"{name}_{index}")
            for index, value in enumerate(signature)
        ]
    return {
        key: map_signature(make, value, f"{name}_{key}" if name else key)
        for key, value in signature.items()
    }


def blank(rows: int, signature: Any, placeholder: int) -> Any:
    """Returns zeros (or empty texts) for samples that lack a modality.

    Args:
        rows: int. The number of samples.
        signature: The modality's signature.
        placeholder: int. What to put in place of unknown sizes.
    """

    def zeros(shape: tuple, dtype: str, name: str) -> np.ndarray:
        full = (rows, *_known_sizes(placeholder, shape))
        if dtype == "string":
            return np.full(full, "", object)
        return np.zeros(full, dtype)

    return map_signature(zeros, signature)


# Sizes to try in place of unknown sizes, one after the other.
PLACEHOLDERS = (16, 64, 256, 4, 1)


def encode_symbolically(encoder: keras.layers.Layer, signature: Any) -> Any:
    """Builds an encoder, and returns its symbolic output.

    Not every layer can be traced with unknown sizes on every backend, so
    placeholders replace them. The width of features does not depend on unknown
    sizes.
    """
    return _with_placeholder(encoder, signature)[0]


def placeholder_of(encoder: keras.layers.Layer, signature: Any) -> int:
    """Returns a size that an encoder takes in place of unknown sizes."""
    if not has_unknown_sizes(signature):
        return PLACEHOLDERS[0]
    return _with_placeholder(encoder, signature)[1]


def _symbol(placeholder: int, shape: tuple, dtype: str, name: str) -> Any:
    sizes = _known_sizes(placeholder, shape)
    return keras.KerasTensor((None, *sizes), dtype, name=name)


def _known_sizes(placeholder: int, shape: tuple) -> list[int]:
    """Returns the sizes behind the batch size, all of them known."""
    return [placeholder if n is None else n for n in shape[1:]]


def _with_placeholder(
    encoder: keras.layers.Layer, signature: Any
) -> tuple[Any, int]:
    """Returns an encoder's symbolic output, and the placeholder for it."""
    tried = PLACEHOLDERS if has_unknown_sizes(signature) else PLACEHOLDERS[:1]
    first: Exception | None = None
    for placeholder in tried:
        make = functools.partial(_symbol, placeholder)
        try:
            return encoder(map_signature(make, signature)), placeholder
        except Exception as error:  # Layers raise errors of any kind.
            first = first or error
    assert first is not None
    raise first


def has_unknown_sizes(signature: Any) -> bool:
    """Returns whether any size except the batch size is unknown."""
    found = []
    map_signature(
        lambda shape, dtype, name: found.append(None in shape[1:]), signature
    )
    return any(found)


def zeros_like(feature: Any) -> Any:
    """Returns zeros for one sample, in place of a symbolic tensor."""
    sizes = [
        n if isinstance(n, int) else PLACEHOLDERS[0] for n in feature.shape[1:]
    ]
    return keras.ops.zeros((1, *sizes), feature.dtype)


# === Configs ===


def revive(config: Any, custom_objects: dict | None = None) -> Any:
    """Deserializes all objects inside a config."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            return keras.saving.deserialize_keras_object(
                config, custom_objects=custom_objects
            )
        return {k: revive(v, custom_objects) for k, v in config.items()}
    if isinstance(config, list):
        return [revive(value, custom_objects) for value in config]
    return config


def freeze_again(encoder: keras.layers.Layer) -> None:
    """Freezes what a frozen part of a revived encoder holds.

    Keras 3.15 revives a frozen backbone of Keras Hub with trainable layers in
    it, which training would move.
    """
    for layer in internals.sublayers(encoder):
        inner = [one for one in internals.sublayers(layer) if one is not layer]
        if not layer.trainable and inner and all(i.trainable for i in inner):
            layer.trainable = False


def portable(config: Any) -> Any:
    """Names Keras's optimizers by their public module.

    On PyTorch, Keras records its PyTorch-specific class, which no other
    backend can use.
    """
    if not isinstance(config, dict):
        return config
    config = {key: portable(value) for key, value in config.items()}
    if str(config.get("module")).startswith("keras.src.backend.torch.optim"):
        config |= {"module": "keras.optimizers", "registered_name": None}
    return config
