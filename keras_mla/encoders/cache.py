"""Runs a frozen encoder over a data set once and keeps the features."""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

_INDEX = "index.json"
_TYPES = (
    "`data` must be an array, a dict of arrays, a `keras.utils.PyDataset`, or "
    "a stream of batches, such as a `tf.data.Dataset`, a `DataLoader` or a "
    "generator. Received: {}"
)
# What this module writes, and nothing else, may be taken up or deleted.
_OWN = re.compile(r"index\.json(\.part)?|shard-\d+\.(npy|part)")


def cache_features(
    encoder: keras.Model,
    data: Any,
    directory: str | Path,
    batch_size: int = 32,
    batches_per_shard: int = 32,
    preprocessing: str = "",
    overwrite: bool = False,
    verbose: int = 1,
) -> np.ndarray:
    """Computes the features of a data set once, and reads them after that.

    The encoder runs in inference mode. Its features are written to `directory`
    in shards, each complete or absent: after a kill the next call computes
    only what is missing. An index beside them holds a fingerprint of the
    encoder, with all weights, of `preprocessing` and of the number of samples:
    features of another encoder are never returned by mistake. A shard whose
    checksum does not match is computed again.

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
            time, but encoded only where features are missing.
        directory: str or path. A folder of its own; made if it is missing.
        batch_size: int. Samples of a forward pass. Defaults to `32`.
        batches_per_shard: int. Batches of a file. Defaults to `32`.
        preprocessing: str. Says how `data` was made, such as `"resize-224"`.
            Another text means other features. Defaults to `""`.
        overwrite: bool. Whether to delete the features of another encoder or
            other data. Defaults to `False`.
        verbose: int. `1` shows a progress bar. Defaults to `1`.

    Returns:
        An array `(samples, features)`, float32 unless the encoder computes in
        float64.

    Raises:
        ValueError: If the directory holds other features or other files, or
            if the arrays' lengths differ.
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
    """
    if batch_size < 1 or batches_per_shard < 1:
        raise ValueError(
            "Batches and shards must hold at least one sample. Received: "
            f"batch_size={batch_size}, batches_per_shard={batches_per_shard}"
        )
    directory = Path(directory)
    batches, samples = _count(data, batch_size)
    if not encoder.built:
        # Its weights are a part of its fingerprint.
        if batches is None:
            first, data = _peek(data)
        else:
            first = next(_batches(data, 0, 1, batch_size))
        _predict(encoder, first)
    index = {
        "encoder": _fingerprint(encoder),
        "preprocessing": preprocessing,
        "batches": batches,
        "samples": samples,
        "batch_size": batch_size if samples is not None else None,
        "batches_per_shard": batches_per_shard,
    }
    checksums = _open(directory, index, overwrite)
    bar = keras.utils.Progbar(batches, verbose=verbose, unit_name="batch")
    shards: list[np.ndarray] = []
    done = 0
    for group in _groups(data, batches, batch_size, batches_per_shard):
        path = directory / f"shard-{len(shards):05d}.npy"
        shard = _read(path, checksums.get(path.name))
        if shard is None or not group.fits(shard):
            parts = []
            for batch in group:
                parts.append(_predict(encoder, batch))
                bar.update(done + len(parts))
            shard = np.concatenate(parts)
            checksums[path.name] = _write(path, shard)
            _write_index(directory, {**index, "checksums": checksums})
        done += len(group)
        bar.update(done, finalize=done == batches)
        shards.append(shard)
    if not shards:
        raise ValueError("There are no samples. Received: data of length 0")
    return np.concatenate(shards)


class _Group:
    """The batches of a shard: read when they are needed, or read already."""

    def __init__(self, count: int, batches: Iterable[Any]) -> None:
        self.count, self.batches = count, batches

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def fits(self, shard: np.ndarray) -> bool:
        """Returns whether a shard may hold the features of these batches."""
        if not isinstance(self.batches, list):
            return True  # The index has compared the numbers of samples.
        return sum(map(_rows, self.batches)) == len(shard)


def _groups(
    data: Any, batches: int | None, batch_size: int, size: int
) -> Iterator[_Group]:
    """Yields the batches of each shard."""
    if batches is None:
        stream = map(_as_arrays, data)
        while group := list(itertools.islice(stream, size)):
            yield _Group(len(group), group)
        return
    for start in range(0, batches, size):
        stop = min(start + size, batches)
        yield _Group(stop - start, _batches(data, start, stop, batch_size))


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
        if hasattr(data, "cardinality") and int(data.cardinality()) == -1:
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


def _fingerprint(encoder: keras.Model) -> str:
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


def _open(
    directory: Path, index: dict[str, Any], overwrite: bool
) -> dict[str, str]:
    """Checks or starts a directory; returns the checksums of its shards."""
    path = directory / _INDEX
    if path.exists():
        old = json.loads(path.read_text())
        checksums = old.pop("checksums", {})
        changed = sorted(k for k in index if index[k] != old.get(k))
        if not changed:
            return checksums
        if not overwrite:
            raise ValueError(
                f"{directory} holds features of something else: "
                f"{', '.join(changed)} changed. Use another directory, or "
                "pass overwrite=True to delete them."
            )
        # The index first: what a kill leaves behind belongs to nothing.
        path.unlink()
        for file in directory.iterdir():
            if _OWN.fullmatch(file.name):
                file.unlink()
    elif directory.exists() and any(
        not _OWN.fullmatch(file.name) for file in directory.iterdir()
    ):
        raise ValueError(
            f"{directory} holds files, but no {_INDEX}: `cache_features` did "
            "not make it. Use another directory."
        )
    directory.mkdir(parents=True, exist_ok=True)
    _write_index(directory, {**index, "checksums": {}})
    return {}


def _read(path: Path, checksum: str | None) -> np.ndarray | None:
    """Reads a shard, if it is there and whole."""
    if checksum is None or not path.exists():
        return None
    if hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
        return None
    return np.load(path, allow_pickle=False)


def _write(path: Path, shard: np.ndarray) -> str:
    """Writes a shard under its name once it is complete; returns a checksum."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, shard, allow_pickle=False)
    checksum = hashlib.sha256(part.read_bytes()).hexdigest()
    os.replace(part, path)
    return checksum


def _write_index(directory: Path, index: dict[str, Any]) -> None:
    part = directory / f"{_INDEX}.part"
    part.write_text(json.dumps(index, indent=2))
    os.replace(part, directory / _INDEX)
