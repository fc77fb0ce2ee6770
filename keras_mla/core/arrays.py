"""Inputs as users pass them: absent modalities, NaN."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

# An array on disk is checked for NaN in its first rows only.
ROWS_ON_DISK = 4096


def fill_none(
    modalities: Sequence[str], x: dict[str, Any], blank: Callable | None
) -> dict[str, Any]:
    """Marks modalities that are `None` as absent in all samples.

    Args:
        modalities: Names of the modalities, in the model's order.
        x: Inputs as users pass them, presence as an array.
        blank: Function of a modality and a number of samples that returns
            zeros; `None` if the model is not built.

    Returns:
        Inputs in which zeros stand for each `None`.

    Raises:
        ValueError: If every modality is `None`, or the model is not built.
    """
    absent = [name for name in modalities if name in x and x[name] is None]
    if not absent:
        return x
    given = [x[name] for name in modalities if x.get(name) is not None]
    if not given or blank is None:
        raise ValueError(
            f"x[{absent[0]!r}] is None, which marks the modality as absent in "
            "all samples. "
            + (
                "At least one modality must have values."
                if not given
                else "The model is not built yet, so the shape of the modality "
                "is not known. Call the model on complete inputs first."
            )
        )
    presence = full_presence(modalities, x)
    rows = len(presence)
    x = dict(x)
    for name in absent:
        x[name] = blank(name, rows)
        presence[:, list(modalities).index(name)] = False
    return {**x, "presence": presence}


def full_presence(modalities: Sequence[str], x: dict[str, Any]) -> np.ndarray:
    """Returns which samples have which modalities, also if all have all.

    Args:
        modalities: Names of the modalities, in the model's order.
        x: Inputs, presence as an array or left out.

    Returns:
        A new bool array of shape `(samples, modalities)`.
    """
    if x.get("presence") is not None:
        return np.array(ops.convert_to_numpy(x["presence"]), bool)
    values = [x[name] for name in modalities if x.get(name) is not None]
    samples = len(keras.tree.flatten(values)[0])
    return np.ones((samples, len(modalities)), bool)


def check_values(modalities: Sequence[str], x: dict[str, Any]) -> None:
    """Raises if a modality's values are plain lists, or hold no sample."""
    for name in modalities:
        leaves = keras.tree.flatten(x[name])
        if leaves and not hasattr(leaves[0], "shape"):
            raise ValueError(
                f"x[{name!r}] must be an array, or a dict of arrays: "
                f"`numpy.asarray(x[{name!r}])` makes one. "
                f"Received: a {type(x[name]).__name__} of "
                f"{type(leaves[0]).__name__}"
            )
        if leaves and tuple(leaves[0].shape)[:1] == (0,):
            raise ValueError(f"x[{name!r}] holds no sample.")


def check_some_present(x: dict[str, Any]) -> None:
    """Raises if presence marks all modalities of all samples as absent."""
    presence = x.get("presence")
    if ops.is_tensor(presence):
        presence = ops.convert_to_numpy(presence)
    if isinstance(presence, np.ndarray) and presence.size:
        if not presence.any():
            raise ValueError(
                "x['presence'] marks every modality of every sample as absent: "
                "there is nothing to learn or to predict from. Presence is "
                "True where a sample has the modality. "
                f"Received: {len(presence)} samples"
            )


def check_no_nan(modalities: Sequence[str], x: dict[str, Any]) -> None:
    """Raises if values that are marked present hold NaN.

    Args:
        modalities: Names of the modalities, in the model's order.
        x: Inputs, presence as an array. Of an array on disk
            (`numpy.memmap`) only the first rows are checked.
    """
    presence = x.get("presence")
    for index, name in enumerate(modalities):
        for value in keras.tree.flatten(x[name]):
            rows = _rows_with_nan(value)
            if rows is None:
                continue
            if presence is not None and len(presence) >= len(rows):
                present = np.asarray(ops.convert_to_numpy(presence), bool)
                rows = rows & present[: len(rows), index]
            if rows.any():
                raise ValueError(
                    f"Modality {name!r} holds NaN in {int(rows.sum())} "
                    "samples that are not marked as absent; the first is row "
                    f"{int(rows.argmax())}. Mark such samples in "
                    "x['presence']: `keras_mla.datasets.presence_of(x)` finds "
                    "them. If an encoder takes NaN, make the model with "
                    "`allow_nan=True`."
                )


def _rows_with_nan(value: Any) -> np.ndarray | None:
    """Returns which rows hold NaN, or `None` if no row does."""
    if isinstance(value, np.memmap):
        value = value[:ROWS_ON_DISK]
    if isinstance(value, np.ndarray):
        # The smallest value is NaN if any is, and takes no memory to find.
        if value.dtype.kind != "f" or not value.size or value.ndim < 1:
            return None
        if not np.isnan(value.min()):
            return None
        return np.isnan(value).reshape(len(value), -1).any(axis=1)
    if not ops.is_tensor(value) or "float" not in str(value.dtype):
        return None
    axes = tuple(range(1, len(value.shape)))
    found = ops.any(ops.isnan(value), axis=axes) if axes else ops.isnan(value)
    rows = np.asarray(ops.convert_to_numpy(found))
    return rows if rows.any() else None
