"""Data sets of a comparison, and encoders that suit their arrays."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Sequence

import keras
import numpy as np

SPLITS = ("train", "validation", "test")
KINDS = ("mlp", "conv1d", "conv2d", "tokens")
# Longer features are taken for a waveform.
LONGEST_FEATURE = 4000


@dataclasses.dataclass
class Data:
    """A data set with its three splits.

    Attributes:
        x: dict of split to dict of modality to array.
        y: dict of split to classes, from 0 to `classes - 1`.
        classes: The number of classes.
    """

    x: dict[str, dict[str, np.ndarray]]
    y: dict[str, np.ndarray]
    classes: int

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return tuple(self.x["train"])


def load(source: str, modalities: Sequence[str] = ()) -> Data:
    """Loads `"digits"` or an `.npz`.

    Args:
        source: `"digits"`, or the path of an `.npz` with an array per
            modality, `y` of classes, and `split` of 0 (training),
            1 (validation) and 2 (test).
        modalities: Names of the arrays to use. Defaults to all arrays but
            `y` and `split`.

    Raises:
        ValueError: If the file does not hold such arrays.
    """
    arrays = _digits() if source == "digits" else _read(source)
    for needed in ("y", "split"):
        if needed not in arrays:
            raise ValueError(
                f"{source} has no array {needed!r}. It needs one per modality,"
                " `y` with a class for each sample, and `split` with 0 "
                "(training), 1 (validation) or 2 (test). "
                f"Received: arrays {sorted(arrays)}"
            )
    y, split = arrays.pop("y"), arrays.pop("split")
    unknown = [name for name in modalities if name not in arrays]
    if unknown:
        raise ValueError(
            f"{source} has no array {unknown[0]!r}. "
            f"Received: arrays {sorted(arrays)}"
        )
    arrays = {name: arrays[name] for name in modalities or arrays}
    if len(arrays) < 2:
        raise ValueError(
            "A comparison needs at least two modalities. "
            f"Received: {list(arrays)}"
        )
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or array.ndim < 2:
            raise ValueError(
                f"The array {name!r} of {source} cannot be a modality: a "
                "modality has numbers of shape (samples, ...). Name the "
                "modalities with --modalities. Received: dtype "
                f"{array.dtype}, shape {array.shape}"
            )
    for name, array in {**arrays, "split": split}.items():
        if len(array) != len(y):
            raise ValueError(
                f"The arrays of {source} must have the same length. Received: "
                f"{len(array)} in {name!r} and {len(y)} in 'y'"
            )
    return _split(source, arrays, y, split)


def _split(
    source: str, arrays: dict[str, np.ndarray], y: np.ndarray, split: np.ndarray
) -> Data:
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ValueError(
            f"`y` of {source} must hold a class, an int, for each sample. "
            f"Received: dtype {y.dtype}, shape {y.shape}"
        )
    rows = {name: np.flatnonzero(split == i) for i, name in enumerate(SPLITS)}
    empty = [name for name, part in rows.items() if not len(part)]
    if empty or not np.isin(split, (0, 1, 2)).all():
        raise ValueError(
            f"`split` of {source} must hold 0 (training), 1 (validation) and "
            f"2 (test), each at least once. Received: {np.unique(split)}"
        )
    classes = int(y[rows["train"]].max()) + 1
    outside = y[(y < 0) | (y >= classes)]
    if len(outside) or classes < 2:
        raise ValueError(
            f"Labels of {source} must lie between 0 and the largest one of "
            f"the training split, {classes - 1}. Received: "
            f"{outside[0] if len(outside) else 'one class alone'}"
        )
    arrays = {
        name: _scaled(array, rows["train"]) for name, array in arrays.items()
    }
    return Data(
        x={
            name: {m: array[part] for m, array in arrays.items()}
            for name, part in rows.items()
        },
        y={name: y[part].astype("int32") for name, part in rows.items()},
        classes=classes,
    )


def _read(path: str) -> dict[str, np.ndarray]:
    if not pathlib.Path(path).is_file():
        raise ValueError(
            "The data set must be 'digits' or the path of an `.npz` file. "
            f"Received: {path}"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not an `.npz` of plain arrays (arrays of objects are "
            f"refused, since reading them may run code): {error}"
        ) from error


def _scaled(array: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Scales numbers to unit deviation in training, at most 5; keeps ids."""
    if _is_tokens(array):
        # Ids beyond those of training have no embedding: they become padding.
        known = (array >= 0) & (array <= array[train].max())
        return np.where(known, array, 0).astype("int32")
    array = array.astype("float32")
    if array.ndim == 2:  # Each feature is scaled by itself.
        mean, deviation = array[train].mean(0), array[train].std(0)
    else:
        mean, deviation = array[train].mean(), array[train].std()
    # Clipped: what hardly varies in training may be an outlier elsewhere.
    return np.clip((array - mean) / np.maximum(deviation, 1e-6), -5, 5)


def _is_tokens(array: np.ndarray) -> bool:
    return array.ndim == 2 and array.dtype.kind in "iu" and array.itemsize > 1


def _digits() -> dict[str, np.ndarray]:
    """Returns digits of 8 x 8 pixels, with their halves as two modalities."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, y = load_digits(return_X_y=True)
    split = np.zeros(len(y), int)
    train, rest = train_test_split(
        np.arange(len(y)), test_size=0.4, random_state=0, stratify=y
    )
    validation, test = train_test_split(
        rest, test_size=0.5, random_state=0, stratify=y[rest]
    )
    split[validation], split[test] = 1, 2
    return {
        "top": images[:, :32],
        "bottom": images[:, 32:],
        "y": y,
        "split": split,
    }


def kind_of(array: np.ndarray) -> str:
    """Returns the kind of encoder that suits an array's shape and dtype."""
    if _is_tokens(array):
        return "tokens"
    if array.ndim == 2:
        return "mlp" if array.shape[1] <= LONGEST_FEATURE else "conv1d"
    if array.ndim == 3 and array.shape[1] > 16 * array.shape[2]:
        return "conv1d"  # Far more steps than channels: a signal.
    return "conv2d"


def make_encoder(array: np.ndarray, kind: str, width: int) -> keras.Model:
    """Makes a small encoder for samples like those of an array.

    Args:
        array: Samples, `(samples, ...)`.
        kind: One of `KINDS`.
        width: Number of features to encode into.
    """
    layers = keras.layers
    inputs = keras.Input(array.shape[1:], dtype=array.dtype.name)
    x = inputs
    if kind == "tokens":
        x = layers.Embedding(int(array.max()) + 1, width)(x)
        words = keras.ops.cast(inputs != 0, "float32")[..., None]
        count = keras.ops.maximum(keras.ops.sum(words, axis=1), 1)
        x = keras.ops.sum(words * x, axis=1) / count
    elif kind == "mlp":
        x = layers.Dense(2 * width, activation="relu")(layers.Flatten()(x))
    elif kind == "conv1d":
        x = x if array.ndim == 3 else layers.Reshape((-1, 1))(x)
        for filters, stride in ((16, 4), (32, 4), (64, 4)):
            x = layers.Conv1D(filters, 9, stride, "same", activation="relu")(x)
        x = layers.GlobalAveragePooling1D()(x)
    elif kind == "conv2d":
        x = x if array.ndim == 4 else layers.Reshape((*array.shape[1:], 1))(x)
        for filters in (16, 32, 64):
            x = layers.Conv2D(filters, 3, 2, "same", activation="relu")(x)
        x = layers.GlobalAveragePooling2D()(x)
    else:
        raise ValueError(
            f"An encoder must be one of {KINDS}. Received: {kind!r}"
        )
    return keras.Model(inputs, layers.Dense(width, activation="relu")(x))
