"""The checks of a request to a model that serves."""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mla.core import building
from keras_mla.core.batch import RESERVED
from keras_mla.presence import by_name, stack_presence


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
        values = {n: _arrays(n, x[n], signature[n], _array) for n in given}
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
        self.presence = None if presence.all() else presence
        self.inputs = {}
        for index, name in enumerate(modalities):
            if name not in given:
                self.inputs[name] = blank(name, self.rows)
                continue
            shown = presence[:, index]
            settle = functools.partial(_settled, shown, allow_nan)
            self.inputs[name] = _arrays(
                name, values[name], signature[name], settle
            )

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


def _arrays(name: str, value: Any, signature: Any, make: Callable) -> Any:
    """Returns what `make(name, value, shape, dtype)` makes of each array."""
    if building.is_tensor(signature):
        return make(name, value, tuple(signature["shape"]), signature["dtype"])
    if isinstance(signature, list):
        if not isinstance(value, list | tuple) or len(value) != len(signature):
            raise ValueError(
                f"Modality {name!r} must be a list of {len(signature)} arrays."
            )
        return [
            _arrays(f"{name}/{index}", part, wanted, make)
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
        key: _arrays(f"{name}/{key}", value[key], part, make)
        for key, part in signature.items()
    }


def _array(name: str, value: Any, shape: tuple, dtype: str) -> np.ndarray:
    """Returns an array of the recorded shape and kind."""
    wanted = f"must be an array of {dtype}, of shape {_shown(shape)}"
    if keras.ops.is_tensor(value):
        value = keras.ops.convert_to_numpy(value)
    text = dtype == "string"
    if not text and _holds_text(value):
        raise ValueError(f"Modality {name!r} {wanted}. Received: texts")
    try:
        # An array of texts would give each the space of the longest.
        array = np.asarray(value, dtype=object if text else None)
    except ValueError:
        raise ValueError(
            f"Modality {name!r} {wanted}. Received: nested lists of unequal "
            "lengths"
        ) from None
    if text:
        right = all(isinstance(one, str | bytes) for one in array.flat)
    else:
        right = array.dtype.kind in "biuf"
    if not right:
        raise ValueError(
            f"Modality {name!r} {wanted}. Received: {_what(array)}"
        )
    fits = len(array.shape) == len(shape) and all(
        size in (None, own)
        for size, own in zip(shape, array.shape, strict=True)
    )
    if not fits or 0 in array.shape[1:]:
        raise ValueError(
            f"Modality {name!r} {wanted}. Received: shape {array.shape}"
        )
    return array


def _holds_text(value: Any) -> bool:
    """Returns whether there is a text in nested lists."""
    if isinstance(value, str | bytes):
        return True
    if isinstance(value, list | tuple):
        # A list of numbers, the usual case, is not gone through in Python.
        kinds = set(map(type, value))
        if any(issubclass(kind, str | bytes) for kind in kinds):
            return True
        inner = any(issubclass(k, list | tuple | np.ndarray) for k in kinds)
        return inner and any(map(_holds_text, value))
    return isinstance(value, np.ndarray) and value.dtype.kind in "US"


def _settled(
    shown: np.ndarray,
    allow_nan: bool,
    name: str,
    array: np.ndarray,
    shape: tuple,
    dtype: str,
) -> np.ndarray:
    """Returns an array of the recorded dtype; absent rows hold zeros."""
    if dtype == "string":
        return array
    if not shown.all():
        array = array.copy()
        array[~shown] = 0
    number = np.dtype(dtype)
    with np.errstate(all="ignore"):
        cast: np.ndarray = array.astype(number)
    if keras.backend.is_float_dtype(dtype):
        if not allow_nan:
            _check_finite(name, cast)
    elif not np.array_equal(cast, array):
        raise ValueError(
            f"Modality {name!r} must be an array of {dtype}, of shape "
            f"{_shown(shape)}. Received: values that are none, such as "
            f"{array[cast != array].flat[0]}"
        )
    return cast


def _presence(
    modalities: Sequence[str], presence: Any, rows: int
) -> np.ndarray:
    """Returns which rows have which modalities."""
    if presence is None:
        return np.ones((rows, len(modalities)), bool)
    presence = by_name(presence)
    if isinstance(presence, Mapping):
        masks = {n: _mask(m, (rows,)) for n, m in presence.items()}
        return np.array(stack_presence(modalities, masks))
    return _mask(presence, (rows, len(modalities)))


def _mask(values: Any, shape: tuple) -> np.ndarray:
    """Returns bools of a shape."""
    if keras.ops.is_tensor(values):
        values = keras.ops.convert_to_numpy(values)
    try:
        found = np.asarray(None if _holds_text(values) else values)
    except ValueError:  # Lists of unequal lengths.
        found = np.asarray(None)
    if found.dtype.kind not in "biuf" or not np.isin(found, (0, 1)).all():
        raise ValueError("'presence' must hold nothing but true and false.")
    if found.shape != shape:
        raise ValueError(
            f"'presence' must have the shape {shape}: a value for each row and "
            "each modality, in the model's order; by name, for each row. "
            f"Received: shape {found.shape}"
        )
    return found.astype(bool)


def _check_finite(name: str, array: np.ndarray) -> None:
    if np.isfinite(array).all():
        return
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    bad = np.flatnonzero(~finite)
    raise ValueError(
        f"Modality {name!r} holds values that are not finite (NaN or infinite) "
        f"in {len(bad)} rows; the first is row {bad[0]}. If a row lacks the "
        "modality, 'presence' must say so."
    )


def _shown(shape: tuple) -> str:
    sizes = ["rows", *("any" if n is None else str(n) for n in shape[1:])]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _what(array: np.ndarray) -> str:
    """Says what an array holds, without printing all of it."""
    if array.dtype.kind == "O" and array.size:
        return f"objects such as {str(array.flat[0])[:40]!r}"
    return f"an array of {array.dtype}"
