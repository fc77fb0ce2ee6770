"""Small encoders, trained from scratch, that suit a modality's values."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

KINDS = ("mlp", "conv1d", "conv2d", "tokens", "video")
# Longer features are taken for a waveform.
_LONGEST_FEATURE = 4000
_OUTLIER = 5.0
_CHUNK = 1024


def kind_of(values: Any) -> str:
    """Returns the kind of encoder that suits an array's shape and dtype.

    Args:
        values: Array of samples `(samples, ...)`, or the dict of `token_ids`
            and `padding_mask` that texts of a table are.
    """
    if isinstance(values, Mapping) or _is_tokens(values):
        return "tokens"
    if values.ndim == 2:
        return "mlp" if values.shape[1] <= _LONGEST_FEATURE else "conv1d"
    if values.ndim == 3 and values.shape[1] > 16 * values.shape[2]:
        return "conv1d"  # Far more steps than channels: a signal.
    return "video" if values.ndim == 5 else "conv2d"


def make_encoder(
    values: Any,
    present: np.ndarray,
    kind: str | None = None,
    width: int = 64,
    trained: bool = True,
) -> keras.Model:
    """Returns a small encoder for samples like the training samples.

    The encoder takes values as they are: it scales numbers by the mean and the
    deviation of the training samples, and clips them at 5 deviations. A token
    that training samples lack is padding.

    Args:
        values: Training samples `(samples, ...)`, or a dict of `token_ids`
            and `padding_mask`.
        present: bool array `(samples,)`. Which samples have the modality.
        kind: One of `KINDS`. Defaults to `kind_of(values)`.
        width: int. Number of features. Defaults to `64`.
        trained: bool. Whether the encoder will be trained. If not, it only
            scales vectors, whose features are the scaled numbers. Defaults to
            `True`.

    Raises:
        ValueError: If the kind is unknown.
    """
    kind = kind or kind_of(values)
    if kind not in KINDS:
        raise ValueError(
            f"An encoder must be one of {list(KINDS)}. Received: {kind!r}"
        )
    if kind == "tokens":
        inputs, x = _words(values, present, width)
    else:
        inputs, x = _scaled(values, present)
        if kind == "mlp" and not trained:
            return keras.Model(inputs, layers.Flatten()(x))
        x = {"mlp": _mlp, "conv1d": _conv1d, "conv2d": _conv2d}.get(
            kind, _video
        )(x, width)
    return keras.Model(inputs, layers.Dense(width, activation="relu")(x))


def _is_tokens(array: np.ndarray) -> bool:
    return array.ndim == 2 and array.dtype.kind in "iu" and array.itemsize > 1


def _words(values: Any, present: np.ndarray, width: int) -> tuple:
    """Averages the embeddings of words."""
    if isinstance(values, Mapping):
        inputs = {
            name: keras.Input(
                array.shape[1:], dtype=array.dtype.name, name=name
            )
            for name, array in values.items()
        }
        ids, known = inputs["token_ids"], inputs["padding_mask"]
        largest = int(np.asarray(values["token_ids"])[present].max())
    else:
        inputs = ids = keras.Input(values.shape[1:], dtype=values.dtype.name)
        largest = int(values[present].max())
        known = ops.not_equal(ids, 0)
    ids = ops.cast(ids, "int32")
    inside = ops.logical_and(ids >= 0, ids <= largest)
    ids = ops.where(inside, ids, ops.zeros_like(ids))
    if not isinstance(values, Mapping):
        known = ops.logical_and(known, inside)
    x = layers.Embedding(largest + 1, width)(ids)
    mask = ops.expand_dims(ops.cast(known, x.dtype), -1)
    count = ops.maximum(ops.sum(mask, axis=1), 1)
    return inputs, ops.sum(x * mask, axis=1) / count


def _scaled(values: np.ndarray, present: np.ndarray) -> tuple:
    """Scales numbers to unit deviation in training."""
    inputs = keras.Input(values.shape[1:], dtype=values.dtype.name)
    # Each feature by itself; what has an order or a place all alike.
    apart = values.ndim == 2
    mean, variance = _moments(values, np.flatnonzero(present), apart)
    scale = layers.Normalization(
        axis=-1 if apart else None,
        mean=mean.tolist(),
        variance=variance.tolist(),
    )
    x = scale(ops.cast(inputs, "float32"))
    # What hardly varies in training may be an outlier elsewhere.
    return inputs, ops.clip(x, -_OUTLIER, _OUTLIER)


def _moments(
    values: np.ndarray, rows: np.ndarray, apart: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and variance of some rows, without a copy of them all."""
    axis = 0 if apart else None

    def mean_of(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        parts = [
            np.mean(function(values[part].astype("float64")), axis) * len(part)
            for part in np.array_split(rows, -(-len(rows) // _CHUNK))
        ]
        return np.sum(parts, axis=0) / len(rows)

    mean = mean_of(lambda part: part)
    variance = mean_of(lambda part: (part - mean) ** 2)
    return mean, np.maximum(variance, 1e-12)


def _mlp(x: Any, width: int) -> Any:
    return layers.Dense(2 * width, activation="relu")(layers.Flatten()(x))


def _conv1d(x: Any, width: int) -> Any:
    if len(x.shape) == 2:
        x = layers.Reshape((-1, 1))(x)
    for filters in (16, 32, 64):
        x = layers.Conv1D(filters, 9, 4, "same", activation="relu")(x)
    return layers.GlobalAveragePooling1D()(x)


def _conv2d(x: Any, width: int) -> Any:
    if len(x.shape) == 3:
        x = layers.Reshape((*x.shape[1:], 1))(x)
    for filters in (16, 32, 64):
        x = layers.Conv2D(filters, 3, 2, "same", activation="relu")(x)
    return layers.GlobalAveragePooling2D()(x)


def _video(x: Any, width: int) -> Any:
    picture = keras.Input(x.shape[2:])
    frame = keras.Model(picture, _conv2d(picture, width))
    return layers.GlobalAveragePooling1D()(layers.TimeDistributed(frame)(x))
