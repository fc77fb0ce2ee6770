"""Runs a frozen encoder over a data set once and keeps the features."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.encoders.feature_store import FeatureStore

_TYPES = (
    "`data` must be an array, a dict of arrays, a `keras.utils.PyDataset`, or "
    "a stream of batches, such as a `tf.data.Dataset`, a `DataLoader` or a "
    "generator. Received: {}"
)
_ENDLESS = 1 << 40


def cache_features(
    encoder: keras.Model,
    data: Any,
    directory: str | Path,
    batch_size: int = 32,
    batches_per_shard: int = 32,
    preprocessing: str = "",
    overwrite: bool = False,
    verbose: int = 1,
    worker: tuple[int, int] | None = None,
) -> Any:
    """Computes the features of a data set once, and reads them after that.

    The encoder runs in inference mode. Its features are written to `directory`
    in shards, each complete or absent: after a kill the next call computes
    only what is missing. At the end the shards are joined to one file,
    `features.npy`, which needs as much disk again until the shards are
    deleted. An index beside it holds a fingerprint of the encoder, with all
    weights, of `preprocessing` and of the number of samples: features of
    another encoder are never returned by mistake. Shards whose checksum does
    not match are computed again; those in `features.npy` are compared when
    the file's size or time is another.

    Several processes share the work if each passes its `worker=(i, n)`, on one
    machine or on a common disk. A worker computes the shards of number i
    modulo n that are not there, and returns as soon as its share is done. Call
    `cache_features` without `worker` when all are done: it computes what is
    missing, such as the share of a worker that was killed, and returns all
    features. `n` may change from run to run.

    To train MLA on the features, give each modality
    `keras.Sequential([keras.Input((features,)), keras.layers.Identity()])` as
    its encoder. A step then takes as long as the head alone.

    Args:
        encoder: `keras.Model`. Its weights must not change afterwards: the
            features are computed once.
        data: The inputs, in a fixed order: an array or a dict of arrays, which
            may be memory-mapped; a `keras.utils.PyDataset`; or a stream, such
            as a `tf.data.Dataset`, a `DataLoader` or a generator. A data set
            or a stream gives batches of inputs, or `(inputs, labels)`, and its
            own batches are used. A stream is read from its beginning each
            time, but encoded only where features are missing; it must end.
        directory: str or path. A folder of its own; made if it is missing.
        batch_size: int. Samples of a forward pass. Defaults to `32`.
        batches_per_shard: int. Batches of a file. Defaults to `32`.
        preprocessing: str. Says how `data` was made, such as `"resize-224"`.
            Another text means other features. Defaults to `""`.
        overwrite: bool. Whether to delete the features of another encoder or
            other data. Workers cannot. Defaults to `False`.
        verbose: int. `1` shows a progress bar. Defaults to `1`.
        worker: pair of int. The number of this process, from 0, and the
            number of processes. Defaults to one process that does all.

    Returns:
        A read-only array `(samples, features)`, float32 unless the encoder
        computes in float64. It is memory-mapped (`np.memmap`): rows are read
        from disk when they are used. Version 0.1.0 returned an array in
        memory, as `np.array(features)` does. A `worker` gets `None`.

    Raises:
        ValueError: If the directory holds other features or other files, the
            arrays' lengths differ, or `worker` is no such pair.
        TypeError: If `data` has another type.

    Example:
    >>> import tempfile
    >>> encoder = keras_mla.encoders.M3AE(
    ...     "image", width=8, depth=1, num_heads=2, image_shape=(32, 32, 3)
    ... )
    >>> images = np.zeros((10, 32, 32, 3), "float32")
    >>> features = keras_mla.encoders.cache_features(
    ...     encoder, images, tempfile.mkdtemp(), verbose=0
    ... )
    >>> features.shape
    (10, 8)

    Two workers, each in a process of its own, and the call that joins:

    >>> folder = tempfile.mkdtemp()
    >>> for worker in ((0, 2), (1, 2), None):
    ...     features = keras_mla.encoders.cache_features(
    ...         encoder, images, folder, verbose=0, worker=worker
    ...     )
    >>> features.shape
    (10, 8)
    """
    if batch_size < 1 or batches_per_shard < 1:
        raise ValueError(
            "Batches and shards must hold at least one sample. Received: "
            f"batch_size={batch_size}, batches_per_shard={batches_per_shard}"
        )
    if worker is not None and not 0 <= worker[0] < worker[1]:
        raise ValueError(
            "A worker is (i, n) with 0 <= i < n. "
            f"Received: worker={tuple(worker)}"
        )
    batches, samples = _count(data, batch_size)
    if not encoder.built:
        # Its weights are a part of its fingerprint.
        if batches is None:
            first, data = _peek(data)
        else:
            first = next(_batches(data, 0, 1, batch_size))
        _predict(encoder, first)
    index = {
        "encoder": fingerprint(encoder),
        "preprocessing": preprocessing,
        "batches": batches,
        "samples": samples,
        "batch_size": batch_size if samples is not None else None,
        "batches_per_shard": batches_per_shard,
    }
    store = FeatureStore(Path(directory), index, overwrite, worker)
    bar = keras.utils.Progbar(batches, verbose=verbose, unit_name="batch")
    if batches is None:
        groups = _stream_groups(data, batches_per_shard, store)
    else:
        groups = _groups(data, batches, batch_size, batches_per_shard, store)
    done = number = 0
    for number, (count, missing) in enumerate(groups, 1):
        if missing is not None:
            parts = []
            for batch in missing:
                parts.append(_predict(encoder, batch))
                bar.update(done + len(parts))
            count = len(parts)
            store.write(number - 1, np.concatenate(parts))
        done += count
        bar.update(done, finalize=done == batches)
    if not number:
        raise ValueError("There are no samples. Received: data of length 0")
    return store.join(number) if worker is None else None


def _groups(
    data: Any, batches: int, batch_size: int, size: int, store: FeatureStore
) -> Iterator[tuple[int, Iterable[Any] | None]]:
    """Yields how many batches a shard has, and those to be computed."""
    for number, start in enumerate(range(0, batches, size)):
        stop = min(start + size, batches)
        missing = store.is_own(number) and store.rows(number) is None
        group = _batches(data, start, stop, batch_size) if missing else None
        yield stop - start, group


def _stream_groups(
    data: Any, size: int, store: FeatureStore
) -> Iterator[tuple[int, Iterable[Any] | None]]:
    """Yields what `_groups` yields, of a stream."""
    stream = iter(data)
    for number in itertools.count():
        first = list(itertools.islice(stream, 1))
        if not first:
            return
        group = itertools.chain(first, itertools.islice(stream, size - 1))
        rows = store.rows(number) if store.is_own(number) else None
        if not store.is_own(number):
            yield sum(1 for _ in group), None
        elif rows is None:
            yield size, map(_as_arrays, group)
        else:
            # The shard may be one of other batches.
            batches = [_as_arrays(batch) for batch in group]
            fits = sum(map(_rows, batches)) == rows
            yield len(batches), None if fits else batches


def _peek(data: Any) -> tuple[Any, Any]:
    """Returns the first batch of a stream, and a stream that still has it."""
    if iter(data) is not data:
        return _as_arrays(next(iter(data))), data  # It can be read again.
    first = next(data)
    return _as_arrays(first), itertools.chain([first], data)


def _as_arrays(batch: Any) -> Any:
    """Returns the inputs of a batch as NumPy arrays."""
    # A stream may give labels too, as fit wants them.
    inputs = batch[0] if isinstance(batch, tuple | list) else batch

    def convert(value: Any) -> np.ndarray:
        if hasattr(value, "detach"):  # A tensor of PyTorch.
            value = value.detach().cpu()
        return np.asarray(value)

    return keras.tree.map_structure(convert, inputs)


def _rows(batch: Any) -> int:
    return len(keras.tree.flatten(batch)[0])


def _count(data: Any, batch_size: int) -> tuple[int | None, int | None]:
    """Counts batches and samples; `None` if only reading would tell."""
    if isinstance(data, keras.utils.PyDataset):
        batches, samples = len(data), None
    elif hasattr(data, "shape") or isinstance(data, dict | list | tuple):
        leaves = keras.tree.flatten(data)
        if not leaves or not all(hasattr(x, "shape") for x in leaves):
            raise TypeError(_TYPES.format(type(data).__name__))
        lengths = {int(x.shape[0]) for x in leaves}
        if len(lengths) > 1:
            raise ValueError(
                "All arrays must hold the same samples. "
                f"Received: lengths={sorted(lengths)}"
            )
        samples = lengths.pop()
        batches = -(-samples // batch_size)
    elif hasattr(data, "__iter__") and not isinstance(data, str | bytes):
        if _is_endless(data):
            raise ValueError(
                "The data set never ends. Received: a data set of infinite "
                "cardinality, as `repeat()` makes it"
            )
        return None, None
    else:
        raise TypeError(_TYPES.format(type(data).__name__))
    if not batches:
        raise ValueError("There are no samples. Received: data of length 0")
    return batches, samples


def _is_endless(data: Any) -> bool:
    if hasattr(data, "cardinality"):
        return int(data.cardinality()) == -1
    try:
        # Grain's `MapDataset.repeat()` is as long as Python can count, and
        # `batch` divides that.
        return len(data) >= _ENDLESS
    except Exception:  # Many streams do not know their length.
        return False


def _batches(
    data: Any, start: int, stop: int, batch_size: int
) -> Iterator[Any]:
    for i in range(start, stop):
        if isinstance(data, keras.utils.PyDataset):
            batch = data[i]
            # A PyDataset may wrap its inputs into a tuple, as fit wants them.
            yield batch[0] if isinstance(batch, tuple) else batch
        else:
            rows = slice(i * batch_size, (i + 1) * batch_size)
            yield keras.tree.map_structure(lambda x, r=rows: x[r], data)


def _predict(encoder: keras.Model, batch: Any) -> np.ndarray:
    features = np.asarray(encoder.predict_on_batch(batch))
    if features.ndim != 2:
        raise ValueError(
            "An encoder must return one row of features per sample. "
            f"Received: features.shape={features.shape}"
        )
    return (
        features if features.dtype == "float64" else features.astype("float32")
    )


def fingerprint(encoder: keras.Model) -> str:
    """Hashes the class, the configuration and the weights of an encoder."""
    config = encoder.get_config()
    # Trainability changes nothing about the features, and automatic names
    # count the layers that happened to be made before.
    config.pop("trainable", None)
    config = _number_names(keras.saving.serialize_keras_object(config))
    digest = hashlib.sha256(type(encoder).__name__.encode())
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for variable in encoder.weights:
        value = np.ascontiguousarray(ops.convert_to_numpy(variable))
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _number_names(config: Any) -> Any:
    """Replaces the layers' names in a configuration by numbers."""
    names: dict[str, str] = {}

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("name"), str):
                names.setdefault(value["name"], f"#{len(names)}")
            value = list(value.values())
        if isinstance(value, list | tuple):
            for item in value:
                collect(item)

    def replace(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replace(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [replace(item) for item in value]
        return names.get(value, value) if isinstance(value, str) else value

    collect(config)
    return replace(config)
