"""The optional dependency on Keras Hub, in one place."""

from typing import Any


def import_hub() -> Any:
    """Imports Keras Hub when an encoder first needs it.

    Returns:
        The module `keras_hub`.

    Raises:
        ImportError: If it is not installed, naming the extra that brings it.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            "ResNet-18 and CLIP come from Keras Hub, which is not installed. "
            'Install it with `pip install "keras-mla[hub]"`.'
        ) from error
    return keras_hub


def load_preset(cls: Any, preset: str, **kwargs: Any) -> Any:
    """Loads a preset by name or from a local folder.

    Args:
        cls: a Keras Hub class that has `from_preset`.
        preset: str. A name or a folder.
        **kwargs: Passed on to `from_preset`.

    Returns:
        What `cls.from_preset` returns.

    Raises:
        ValueError: If there is neither such a preset nor such a folder, or the
            folder holds something else.
    """
    try:
        return cls.from_preset(str(preset), **kwargs)
    except Exception as error:
        raise ValueError(
            f"No {cls.__name__} can be loaded from this preset. Give a "
            "preset's name, which is downloaded, or a local folder written by "
            f"`save_to_preset`. Received: preset={preset}. "
            f"Keras Hub said: {error}"
        ) from error
