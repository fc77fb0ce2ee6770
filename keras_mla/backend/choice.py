"""Finds the module of the current backend."""

import importlib
from collections.abc import Callable
from typing import Any

import keras

BACKENDS = ("tensorflow", "jax", "torch")


def finder(package: str) -> Callable[[str], Any]:
    """Returns a function that finds a package's functions by name.

    A function comes from the package's module for the current backend, or from
    its module `common` if that module does not define it.

    Args:
        package: Name of a package with a module `common`, and modules named
            after backends.

    Raises:
        ImportError: If the library does not support the backend.
    """
    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise ImportError(
            "keras_mla runs on the Keras backends 'tensorflow', 'jax' and "
            "'torch'. Set the environment variable KERAS_BACKEND to one of "
            f"them. Received: KERAS_BACKEND={backend}"
        )
    common = importlib.import_module(f"{package}.common")
    try:
        own = importlib.import_module(f"{package}.{backend}")
    except ModuleNotFoundError as error:
        if error.name != f"{package}.{backend}":
            raise
        own = common

    def find(name: str) -> Any:
        return getattr(own, name, None) or getattr(common, name)

    return find
