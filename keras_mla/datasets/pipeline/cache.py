"""Decoded samples on disk, one `.npy` file each."""

import hashlib
import os
import tempfile
from typing import Any

import numpy as np

from keras_mla.datasets.listing.sample import Sample
from keras_mla.datasets.pipeline.reader import Reader
from keras_mla.datasets.readers.arrays import to_numpy


def decode_once(
    cache_dir: str, name: str, reader: Reader, sample: Sample
) -> Any:
    """Returns what `reader.decode` gives, from the cache if it is there.

    A file of the cache is found by the path, time and size of the original
    file, the sample's span, and the reader's key. It appears under its name
    only when it is whole.

    Args:
        cache_dir: str. The folder of the cache.
        name: str. The modality.
        reader: `Reader`. The reader of the modality. Only a reader of paths
            has a key.
        sample: `Sample`.
    """
    path = sample.inputs[name]
    stat = os.stat(path)
    key = f"{path} {stat.st_mtime_ns} {stat.st_size} {sample.span} "
    digest = hashlib.sha256((key + reader.key).encode()).hexdigest()
    folder = os.path.join(cache_dir, digest[:2])
    file = os.path.join(folder, digest + ".npy")
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        pass  # Not there yet, or damaged: made anew.
    value = reader.decode(sample)
    if isinstance(value, list):
        value = np.stack([to_numpy(part) for part in value])
    value = to_numpy(value)
    os.makedirs(folder, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=folder, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.save(stream, value, allow_pickle=False)
        os.replace(partial, file)
    except BaseException:
        os.unlink(partial)
        raise
    return value
