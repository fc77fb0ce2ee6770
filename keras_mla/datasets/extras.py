"""Packages that only some users need, and the extras that bring them."""

import importlib
from typing import Any

_EXTRAS = {
    "av": ("PyAV", "media"),
    "jinja2": ("Jinja2", "compare"),
    "keras_hub": ("keras-hub", "hub"),
    "matplotlib": ("matplotlib", "compare"),
    "pandas": ("pandas", "tables"),
    "PIL.Image": ("Pillow", "media"),
    "pyarrow": ("pyarrow", "tables"),
    "scipy.signal": ("SciPy", "audio"),
    "scipy.sparse": ("SciPy", "compare"),
    "scipy.special": ("SciPy", "compare"),
    "sklearn.metrics": ("scikit-learn", "compare"),
    "sklearn.model_selection": ("scikit-learn", "tables"),
    "soundfile": ("soundfile", "audio"),
    "tensorflow": ("TensorFlow", "tensorflow"),
    "tensorflow_io": ("tensorflow-io", "tfio"),
    "tokenizers": ("tokenizers", "tables"),
}


def need(module: str, task: str, otherwise: str = "") -> Any:
    """Imports a package that a task needs.

    Args:
        module: str. A module of the table above.
        task: str. What the package is needed for, such as `"decode sounds"`.
        otherwise: str. What to do without the package. Defaults to nothing.

    Returns:
        The module.

    Raises:
        ImportError: If the package is not installed. The message names the
            extra that brings the package.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name, extra = _EXTRAS[module]
        raise ImportError(
            f'{name} is needed to {task}: pip install "keras-mla[{extra}]"'
            + (f", or {otherwise}." if otherwise else ".")
        ) from error
