"""Presence: which samples have which modalities."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops


def stack_presence(modalities: Sequence[str], presence: Any) -> Any:
    """Returns presence by name as an array; other presence stays as it is.

    Args:
        modalities: Names of the modalities, in the order of the columns.
        presence: Bool array of shape `(samples, modalities)`; or a mapping, or
            a DataFrame, from names of modalities to bool arrays of shape
            `(samples,)`. A modality that it does not name is present.

    Returns:
        Bool array of shape `(samples, modalities)`, or `presence` itself if
        it is not by name.

    Raises:
        ValueError: If a name is not a modality, or a mask has another shape
            than the others.
    """
    presence = by_name(presence)
    if isinstance(presence, list | tuple):
        presence = np.asarray(presence, bool)
    if not isinstance(presence, Mapping):
        return presence
    unknown = [name for name in presence if name not in modalities]
    if unknown or not presence:
        raise ValueError(
            "`presence` by name must map modalities to masks. The modalities "
            f"are {list(modalities)}. Received: {list(presence)}"
        )
    masks = {
        name: mask if hasattr(mask, "shape") else np.asarray(mask)
        for name, mask in presence.items()
    }
    shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
    if len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 1:
        raise ValueError(
            "Each mask of `presence` must have the shape (samples,). "
            f"Received: shapes {shapes}"
        )
    first = next(iter(masks.values()))
    if all(isinstance(mask, np.ndarray) for mask in masks.values()):
        present: Any = np.ones(len(first), bool)
        found = [masks.get(name, present) for name in modalities]
        return np.stack([np.asarray(mask, bool) for mask in found], axis=1)
    present = ops.ones_like(first, dtype="bool")
    found = [masks.get(name, present) for name in modalities]
    return ops.stack([ops.cast(mask, "bool") for mask in found], axis=1)


def by_name(presence: Any) -> Any:
    """Returns a DataFrame as a dict of masks; other presence stays as it is."""
    if hasattr(presence, "columns"):
        return {name: presence[name].to_numpy() for name in presence.columns}
    return presence
