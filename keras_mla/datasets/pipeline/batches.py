"""Builds a `tf.data.Dataset` of batches from samples and readers."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_mla.datasets.listing.problems import Problems
from keras_mla.datasets.listing.sample import Sample
from keras_mla.datasets.pipeline.loader import Loader
from keras_mla.datasets.pipeline.reader import Reader
from keras_mla.presence import stack_presence

if TYPE_CHECKING:
    import tensorflow as tf


def build(
    samples: Sequence[Sample],
    readers: Mapping[str, Reader],
    *,
    batch_size: int | None = 32,
    training: bool = False,
    shuffle: bool | None = None,
    augment: bool | None = None,
    seed: int = 0,
    workers: int | None = None,
    cache_dir: str | os.PathLike | None = None,
    on_error: str = "raise",
    presence: Any | None = None,
) -> "tf.data.Dataset":
    """Builds the pipeline: shuffle, decode, features, batch, prefetch.

    Only `seed` and the epoch decide which samples come, in which order and
    with which random crops: neither the number of workers nor the machine
    does. Later epochs of one dataset are shuffled and cropped anew.

    Args:
        samples: The samples, from a data set's `files`.
        readers: dict of modality name to `Reader`, in the order of the
            model's modalities.
        batch_size: int, or `None` for single samples. The last batch holds
            what is left. Defaults to `32`.
        training: bool. Default of `shuffle` and `augment`. Defaults to
            `False`.
        shuffle: bool. Whether to shuffle all samples in each epoch. Defaults
            to `training`.
        augment: bool. Whether to crop, flip and mask at random. Defaults to
            `training`.
        seed: int. Seed of every random choice. Defaults to `0`.
        workers: int. Number of samples decoded at the same time. If not
            given, tf.data chooses it.
        cache_dir: str or path. A folder for decoded waveforms, images and
            frames, one `.npy` file each. A file of the cache is used as long
            as the original file is unchanged. Decoded images are larger than
            compressed ones: the cache pays for videos and resampled sound.
            Defaults to no cache.
        on_error: `"raise"`; `"skip"` to leave out samples that cannot be
            decoded; or `"absent"`: a modality that cannot be decoded is
            absent. Each is logged once, as a warning of the logger
            `keras_mla`, and kept in the dict `dataset.skipped`, by id, or
            `dataset.absent`, by id and modality. Defaults to `"raise"`.
        presence: bool array `(samples, modalities)`, see
            `missing.missing_presence`; or a dict or DataFrame of modality name
            to bool array `(samples,)`. What is absent is not decoded.

    Returns:
        A `tf.data.Dataset` of `({modality: x}, label)`, labels int32. If a
        modality may be absent, the inputs hold `"presence"`: a bool tensor
        `(batch, modalities)` if `presence` is such an array, else a dict of
        modality name to bool tensor `(batch,)`. Values of absent modalities
        are zero.

    Raises:
        ValueError: If there are no samples, or `presence` does not fit. While
            iterating, a sample that cannot be decoded raises
            `tf.errors.InvalidArgumentError`. Its message names the list file
            and line, the sample, the file and the reason.

    Example:
    >>> from keras_mla.datasets import listing, pipeline
    >>> texts = ["a pinch of salt", "some oil"]
    >>> samples = [
    ...     listing.Sample(str(i), i, {"text": text}, f"line {i + 1}")
    ...     for i, text in enumerate(texts)
    ... ]
    >>> readers = {"text": pipeline.text_reader()}
    >>> [(x, y)] = pipeline.build(samples, readers).as_numpy_iterator()
    >>> x["text"][1], y
    (b'some oil', array([0, 1], dtype=int32))
    """
    import tensorflow as tf

    if not samples:
        raise ValueError("There are no samples to load.")
    names = list(readers)
    shuffle = training if shuffle is None else shuffle
    augment = training if augment is None else augment
    # Columns by position stay so; what is found or given by name has names.
    positional = presence is not None
    if presence is not None:
        stacked = stack_presence(names, presence)
        positional = stacked is presence
        presence = np.asarray(stacked, bool)
        if presence.shape != (len(samples), len(names)):
            raise ValueError(
                f"`presence` must have one row per sample and one column per "
                f"modality ({', '.join(names)}): {(len(samples), len(names))}."
                f" Received: presence.shape={presence.shape}"
            )
    problems = Problems(on_error)
    cache = None if cache_dir is None else os.path.abspath(cache_dir)
    loader = Loader(samples, readers, augment, cache, problems, presence)
    marked = (
        presence is not None or problems.absent or not loader.presence.all()
    )
    labels = tf.constant([s.label for s in samples], tf.int32)
    parallel = tf.data.AUTOTUNE if workers is None else workers
    # Nothing here needs a translation of Python's own `if` and `for`.
    plain = tf.autograph.experimental.do_not_convert
    types = [tf.bool, tf.bool] + [
        tf.string if r.dtype == "object" else tf.as_dtype(r.dtype)
        for r in readers.values()
    ]

    @plain
    def read(index: Any, draw: Any) -> tuple:
        fine, present, *arrays = tf.numpy_function(loader, [index, draw], types)
        fine.set_shape(())
        present.set_shape((len(names),))
        x = {}
        for (name, reader), array in zip(readers.items(), arrays, strict=True):
            array.set_shape(reader.shape)
            x[name] = reader.features(array) if reader.features else array
        if marked and positional:
            x["presence"] = present
        elif marked:
            x["presence"] = dict(zip(names, tf.unstack(present), strict=True))
        return fine, x, tf.gather(labels, index)

    @plain
    def mask(x: dict, label: Any) -> tuple:
        # Inside this graph only: the draws of the operations that follow.
        tf.random.set_seed(seed)
        x = dict(x)
        for name, reader in readers.items():
            if reader.augment:
                x[name] = reader.augment(x[name])
        return x, label

    @plain
    def finish(x: dict, label: Any) -> tuple:
        x = dict(x)
        for name, reader in readers.items():
            if reader.batched:
                x[name] = reader.batched(x[name])
        return x, label

    dataset = tf.data.Dataset.range(len(samples))
    if shuffle:
        dataset = dataset.shuffle(len(samples), seed=seed)
    draws = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    dataset = tf.data.Dataset.zip((dataset, draws))
    dataset = dataset.map(read, parallel, deterministic=True)
    if problems.skip:
        dataset = dataset.filter(lambda fine, x, label: fine)
    dataset = dataset.map(lambda fine, x, label: (x, label))
    if augment and any(r.augment for r in readers.values()):
        dataset = dataset.map(mask)
    size = 1 if batch_size is None else batch_size
    dataset = dataset.batch(size).map(finish, parallel, deterministic=True)
    if batch_size is None:
        dataset = dataset.unbatch()
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    dataset.skipped, dataset.absent = loader.skipped, loader.absent
    return dataset
