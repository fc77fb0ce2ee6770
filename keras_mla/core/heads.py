"""Heads: made from a number of units or a layer, and read layer by layer."""

from collections.abc import Iterator
from typing import Any

import keras


def make_head(head: Any) -> keras.layers.Layer:
    """Makes a head from a number of units, or checks a layer.

    Raises:
        ValueError: If `head` is not a positive number, a `Dense`, or a
            `Sequential` that ends in a `Dense`; or the `Dense` has an
            activation.
    """
    if isinstance(head, int) and not isinstance(head, bool):
        if head < 1:
            raise ValueError(
                "The number of classes must be at least 2, the number of "
                f"labels or targets at least 1. Received: head={head}"
            )
        return keras.layers.Dense(head, name="head")
    last = head
    while isinstance(last, keras.Sequential) and last.layers:
        last = last.layers[-1]
    if not isinstance(last, keras.layers.Dense):
        raise ValueError(
            "`head` must be a number of classes, a `keras.layers.Dense`, or a "
            "`keras.Sequential` that ends in one. "
            f"Received: head={head} of type {type(head).__name__}"
            + (
                f", which ends in a {type(last).__name__}"
                if last is not head
                else ""
            )
        )
    inner = [part for part in leaves(head) if isinstance(part, keras.Model)]
    if inner:
        raise ValueError(
            "A head of several layers must be a plain `keras.Sequential` of "
            "layers and plain Sequentials, so that kernels can be found. "
            f"Received: head={head}, with {inner[0]} of type "
            f"{type(inner[0]).__name__}"
        )
    if last.activation is not keras.activations.linear:
        raise ValueError(
            "The head must return logits: its last `Dense` must have no "
            "activation. Losses and fusion apply the softmax themselves. "
            f"Received: activation={last.activation.__name__}"
        )
    return head


def leaves(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """Yields the layers of a `keras.Sequential` in order, nested ones unpacked.

    Any other layer is its own only leaf. So is a subclass of Sequential, which
    may do more than call its layers.
    """
    if type(layer) is keras.Sequential:
        for part in layer.layers:
            yield from leaves(part)
    else:
        yield layer


def dense_layers(head: keras.layers.Layer) -> list[keras.layers.Dense]:
    """Returns the `Dense` layers of a head, in order."""
    return [p for p in leaves(head) if isinstance(p, keras.layers.Dense)]


def number_of_units(head: keras.layers.Layer) -> int:
    """Returns the number of logits of a checked head."""
    *_, last = leaves(head)
    return last.units


def head_like(head: keras.layers.Layer, name: str) -> keras.layers.Layer:
    """Returns an unbuilt layer of the same configuration as a head.

    The new layer has its own weights, for inputs of any width.

    Args:
        head: The head.
        name: Name of the new layer.
    """

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

    config = unbuilt(head.get_config())
    return type(head).from_config({**config, "name": name})
