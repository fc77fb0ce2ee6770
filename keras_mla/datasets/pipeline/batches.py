"""Builds batches from samples and readers, with either engine."""

import importlib.util
import operator
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_mla.datasets.listing.problems import Problems
from keras_mla.datasets.listing.sample import Sample
from keras_mla.datasets.pipeline import tensorflow
from keras_mla.datasets.pipeline.loader import Loader, Notes
from keras_mla.datasets.pipeline.order import Epochs
from keras_mla.datasets.pipeline.plan import Plan, stack_labels
from keras_mla.datasets.pipeline.python import Batches
from keras_mla.datasets.pipeline.reader import Reader
from keras_mla.datasets.readers.spectrograms import STFT, Fbank
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
    sample_ids: bool = False,
    engine: str | None = None,
    use_multiprocessing: bool = False,
) -> "tf.data.Dataset | Batches":
    """Builds the pipeline: shuffle, decode, features, batch, prefetch.

    Two engines read the same: `tf.data`, and a `keras.utils.PyDataset` that
    needs no TensorFlow. Both take each epoch's order from `(seed, epoch)`, and
    a sample's random crops and masks from `(seed, epoch, index)`. Neither the
    number of workers nor the machine changes what is read. Without
    augmentation, the engines' arrays are equal, spectrograms within rounding.

    Each iteration over the data begins an epoch, with a new order and new
    crops. `set_epoch(epoch)` of the result says which epoch comes next. `fit`
    of the models of `keras_mla` calls it with its own epoch, unless
    `steps_per_epoch` is given. So a run that was killed and resumed at the end
    of an epoch reads what it would have read without the interruption.

    Args:
        samples: The samples, from a data set's `files`, or your own.
        readers: dict of modality name to `Reader`, in the order of the
            model's modalities.
        batch_size: int, or `None` for single samples, which only
            `engine="tensorflow"` gives. The last batch holds what is left.
            Defaults to `32`.
        training: bool. Default of `shuffle` and `augment`. Defaults to
            `False`.
        shuffle: bool. Whether to shuffle all samples in each epoch. Defaults
            to `training`.
        augment: bool. Whether to crop, flip and mask at random. Defaults to
            `training`.
        seed: int, at least 0. Seed of every random choice. Defaults to `0`.
        workers: int. Number of samples decoded at the same time. Defaults to
            the number of CPU cores, at most 8; tf.data chooses it itself for
            sound, for single samples and with `on_error="skip"`.
        cache_dir: str or path. A folder for decoded waveforms, images and
            frames, one `.npy` file each. A file of the cache is used as long
            as the original file is unchanged. Decoded images are larger than
            compressed ones: the cache pays for videos and resampled sound.
            Defaults to no cache.
        on_error: `"raise"`; `"skip"` to leave out samples that cannot be
            decoded; or `"absent"`: a modality that cannot be decoded is
            absent. Each is logged once, as a warning of the logger
            `keras_mla`, and kept in the dict `skipped` of the result, by id,
            or `absent`, by id and modality. tf.data fills the place of a
            skipped sample with the next one. The Python engine leaves the
            number of batches as it is: a batch is smaller without the skipped
            samples, and a batch without any sample repeats the next one that
            can be decoded. Defaults to `"raise"`.
        presence: bool array `(samples, modalities)`, see
            `missing.missing_presence`; or a dict or DataFrame of modality name
            to bool array `(samples,)`. What is absent is not decoded.
        sample_ids: bool. Whether the inputs hold `"sample_id"`, the index of
            each sample in `samples`: int32 `(batch,)`. QMF needs it in
            training. Defaults to `False`.
        engine: `"tensorflow"` for a `tf.data.Dataset`, `"python"` for a
            `keras.utils.PyDataset`. Defaults to `"tensorflow"` if TensorFlow
            and, for spectrograms, tensorflow-io are installed, else to
            `"python"`.
        use_multiprocessing: bool. Whether the Python engine decodes in worker
            processes instead of threads. The processes start anew
            (`"spawn"`): a script needs `if __name__ == "__main__":` around
            what it runs, and readers of your own must be picklable. Defaults
            to `False`.

    Returns:
        A `tf.data.Dataset`, or a `keras.utils.PyDataset` (`Batches`), of
        `({modality: x}, label)`. Labels are int32 `(batch,)`, or float32
        `(batch,)` or `(batch, k)`, see `Sample`. If a modality may be absent,
        the inputs hold `"presence"`: a bool array `(batch, modalities)` if
        `presence` is such an array, else a dict of modality name to bool array
        `(batch,)`. Values of absent modalities mean nothing.

    Raises:
        ValueError: If there are no samples, or an argument or a label does not
            fit. While iterating, a sample that cannot be decoded raises
            `ValueError` in Python and `tf.errors.InvalidArgumentError` in
            tf.data. Its message names the list file and line, the sample, the
            file and the reason.
        ImportError: If a package is missing. The message names the extra that
            brings the package. While iterating in tf.data, it is another error
            with the same message.

    Example:
    >>> from keras_mla.datasets import pipeline
    >>> texts = ["a pinch of salt", "some oil"]
    >>> samples = [
    ...     pipeline.Sample(str(i), i, {"text": text}, f"line {i + 1}")
    ...     for i, text in enumerate(texts)
    ... ]
    >>> readers = {"text": pipeline.text_reader()}
    >>> [(x, y)] = pipeline.build(samples, readers, engine="python")
    >>> x["text"][1], y
    (b'some oil', array([0, 1], dtype=int32))
    """
    if not samples:
        raise ValueError("There are no samples to load.")
    chosen = _choose_engine(engine, readers)
    _check_numbers(chosen, batch_size, seed, workers, use_multiprocessing)
    names = list(readers)
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
    loader = Loader(
        samples,
        readers,
        operator.index(seed),
        training if augment is None else augment,
        None if cache_dir is None else os.path.abspath(cache_dir),
        problems,
        presence,
    )
    plan = Plan(
        loader,
        stack_labels(samples),
        batch_size,
        workers,
        shuffle=training if shuffle is None else shuffle,
        marked=(
            presence is not None or problems.absent or not loader.presence.all()
        ),
        positional=positional,
        identified=sample_ids,
        epochs=Epochs(),
        notes=Notes(),
    )
    if chosen == "python":
        return Batches(plan, use_multiprocessing)
    return tensorflow.dataset(plan)


def _choose_engine(engine: str | None, readers: Mapping[str, Reader]) -> str:
    if engine is None:
        needed = ["tensorflow"]
        if any(isinstance(r.features, Fbank | STFT) for r in readers.values()):
            needed.append("tensorflow_io")
        found = all(importlib.util.find_spec(name) for name in needed)
        return "tensorflow" if found else "python"
    if engine not in ("tensorflow", "python"):
        raise ValueError(
            '`engine` must be "tensorflow" or "python". '
            f"Received: engine={engine!r}"
        )
    return engine


def _check_numbers(
    engine: str,
    batch_size: int | None,
    seed: int,
    workers: int | None,
    use_multiprocessing: bool,
) -> None:
    if batch_size is None and engine == "python":
        raise ValueError(
            '`batch_size` must be a number with engine="python", since a '
            "`PyDataset` holds batches. Received: batch_size=None"
        )
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
        ("workers", workers, 1),
    ):
        if value is not None and value < least:
            raise ValueError(
                f"`{name}` must be at least {least}. Received: {name}={value}"
            )
    if use_multiprocessing and engine == "tensorflow":
        raise ValueError(
            '`use_multiprocessing` needs engine="python": tf.data decodes in '
            "threads. Received: use_multiprocessing=True"
        )
