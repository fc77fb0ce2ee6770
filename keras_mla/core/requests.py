"""The checks of a request to a model that serves."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mla.core import building
from keras_mla.core.batch import RESERVED
from keras_mla.presence import stack_presence


class Request:
    """The inputs of one call of a serving function, checked.

    Args:
        modalities: Names of the modalities, in the model's order.
        signature: Shapes and dtypes that the model was built for.
        blank: Function of a modality and a number of rows that returns zeros.
        x: dict of modality to arrays or nested lists, as users pass it.
        allow_nan: bool. Whether values that are not finite are allowed.

    Attributes:
        inputs: dict of each modality's arrays, of the recorded dtypes.
            Zeros stand for modalities that the request lacks.
        presence: Bool array of shape `(rows, modalities)`, or `None` if each
            row has all modalities.
        rows: int.

    Raises:
        ValueError: If anything is not as the model expects. The message names
            the modality.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        signature: Mapping[str, Any],
        blank: Callable,
        x: Any,
        allow_nan: bool,
    ) -> None:
        self.modalities = tuple(modalities)
        _check_keys(modalities, x)
        given = [name for name in modalities if x.get(name) is not None]
        if not given:
            raise ValueError(
                "The request holds no modality. It needs at least one of "
                f"{list(modalities)}."
            )
        values = {n: _arrays(n, x[n], signature[n]) for n in given}
        rows = {n: len(keras.tree.flatten(v)[0]) for n, v in values.items()}
        self.rows = rows[given[0]]
        if len(set(rows.values())) > 1:
            raise ValueError(
                "All modalities must have the same number of rows. Received: "
                + ", ".join(f"{n!r} with {r}" for n, r in rows.items())
            )
        if self.rows == 0:
            raise ValueError("The request holds no row.")
        presence = _presence(modalities, x.get("presence"), self.rows)
        for index, name in enumerate(modalities):
            if name not in given:
                presence[:, index] = False
        self._check_present(presence)
        if not allow_nan:
            for name in given:
                shown = presence[:, self.modalities.index(name)]
                _check_finite(name, values[name], shown)
        self.presence = None if presence.all() else presence
        self.inputs = {
            name: values[name] if name in given else blank(name, self.rows)
            for name in modalities
        }

    def _check_present(self, presence: np.ndarray) -> None:
        empty = np.flatnonzero(~presence.any(axis=1))
        if len(empty):
            raise ValueError(
                f"{len(empty)} rows have no modality at all; the first is row "
                f"{empty[0]}."
            )

    def parts(self, size: int) -> list[dict[str, Any]]:
        """Returns the inputs of at most `size` rows at a time.

        `presence` is among them if any row lacks a modality.
        """
        x = self.inputs
        if self.presence is not None:
            x = {**x, "presence": self.presence}
        return [
            keras.tree.map_structure(operator.itemgetter(part), x)
            for part in (
                slice(start, start + size)
                for start in range(0, self.rows, size)
            )
        ]


def _check_keys(modalities: Sequence[str], x: Any) -> None:
    if not isinstance(x, Mapping):
        raise ValueError(
            "A request must map modalities to arrays. The modalities are "
            f"{list(modalities)}. Received: a {type(x).__name__}"
        )
    unknown = [n for n in x if n not in modalities and n not in RESERVED]
    if unknown:
        raise ValueError(
            f"The request has unknown keys: {unknown}. The modalities are "
            f"{list(modalities)}; 'presence' may be there too."
        )


def _arrays(name: str, value: Any, signature: Any) -> Any:
    """Returns a modality's arrays, of the recorded dtypes."""
    if building.is_tensor(signature):
        return _array(
            name, value, tuple(signature["shape"]), signature["dtype"]
        )
    if isinstance(signature, list):
        if not isinstance(value, list | tuple) or len(value) != len(signature):
            raise ValueError(
                f"Modality {name!r} must be a list of {len(signature)} arrays."
            )
        return [
            _arrays(f"{name}/{index}", part, wanted)
            for index, (part, wanted) in enumerate(
                zip(value, signature, strict=True)
            )
        ]
    if len(signature) == 1 and not isinstance(value, Mapping):
        value = dict.fromkeys(signature, value)  # Keras takes it in `fit`.
    if not isinstance(value, Mapping) or set(value) != set(signature):
        shown = (
            f"the keys {sorted(value)}"
            if isinstance(value, Mapping)
            else f"a {type(value).__name__}"
        )
        raise ValueError(
            f"Modality {name!r} must have the keys {sorted(signature)}. "
            f"Received: {shown}"
        )
    return {
        key: _arrays(f"{name}/{key}", value[key], part)
        for key, part in signature.items()
    }


def _array(name: str, value: Any, shape: tuple, dtype: str) -> np.ndarray:
    wanted = f"must be an array of {dtype}, of shape {_shown(shape)}"
    if keras.ops.is_tensor(value):
        value = keras.ops.convert_to_numpy(value)
    try:
        array = np.asarray(value)
    except ValueError:  # Lists of unequal lengths.
        array = np.asarray(None)
    if dtype == "string":
        texts = array.dtype.kind in "US" or (
            array.dtype.kind == "O"
            and all(isinstance(one, str | bytes) for one in array.flat)
        )
        if not texts:
            raise ValueError(
                f"Modality {name!r} {wanted}. Received: {_what(value)}"
            )
        array = array.astype(object)
    elif array.dtype.kind not in "biuf":
        raise ValueError(
            f"Modality {name!r} {wanted}. Received: {_what(value)}"
        )
    fits = len(array.shape) == len(shape) and all(
        size in (None, own)
        for size, own in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"Modality {name!r} {wanted}. Received: shape {array.shape}"
        )
    return array if dtype == "string" else _cast(name, array, dtype, wanted)


def _cast(name: str, array: np.ndarray, dtype: str, wanted: str) -> np.ndarray:
    """Returns an array of another dtype, if that changes no value."""
    kind = np.dtype(dtype)
    if array.dtype == kind:
        return array
    with np.errstate(all="ignore"):
        cast: np.ndarray = array.astype(kind)
    if keras.backend.is_float_dtype(dtype):
        return cast
    if not np.array_equal(cast.astype(array.dtype), array):
        raise ValueError(
            f"Modality {name!r} {wanted}. Received: values that are none, such "
            f"as {array[cast.astype(array.dtype) != array].flat[0]}"
        )
    return cast


def _presence(
    modalities: Sequence[str], presence: Any, rows: int
) -> np.ndarray:
    if presence is None:
        return np.ones((rows, len(modalities)), bool)
    if isinstance(presence, Mapping):
        found = stack_presence(modalities, presence)
    else:
        found = presence
    try:
        found = np.asarray(keras.ops.convert_to_numpy(found))
    except (TypeError, ValueError):
        found = np.asarray(None)
    numbers = found.dtype.kind in "biuf"
    if found.shape != (rows, len(modalities)) or not numbers:
        raise ValueError(
            f"'presence' must have the shape {(rows, len(modalities))}, with a "
            f"column for each of the modalities {list(modalities)}; or map "
            f"modalities to {rows} values each. Received: "
            + (f"shape {found.shape}" if numbers else _what(presence))
        )
    if not np.isin(found, (0, 1)).all():
        raise ValueError("'presence' must hold nothing but true and false.")
    return found.astype(bool)


def _check_finite(name: str, value: Any, present: np.ndarray) -> None:
    for array in keras.tree.flatten(value):
        if array.dtype.kind in "OUSbiu" or np.isfinite(array).all():
            continue
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        bad = np.flatnonzero(present & ~finite)
        if len(bad):
            raise ValueError(
                f"Modality {name!r} holds values that are not finite (NaN or "
                f"infinite) in {len(bad)} rows; the first is row {bad[0]}. If "
                "a row lacks the modality, 'presence' must say so."
            )


def _shown(shape: tuple) -> str:
    sizes = ["rows", *("any" if n is None else str(n) for n in shape[1:])]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _what(value: Any) -> str:
    """Says what a value is, without printing all of it."""
    try:
        array = np.asarray(value)
    except ValueError:
        return "nested lists of unequal lengths"
    if array.dtype.kind in "US" or (
        array.size and isinstance(array.flat[0], str)
    ):
        return "texts"
    if array.dtype.kind == "O":
        return f"objects such as {str(array.flat[0])[:40]!r}"
    return f"an array of {array.dtype}"
