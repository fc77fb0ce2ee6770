"""From a list of samples to a `tf.data.Dataset` that any backend takes."""

import dataclasses
import hashlib
import logging
import os
import tempfile
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_mla.datasets import audio as audio_lib
from keras_mla.datasets import image as image_lib
from keras_mla.datasets import video as video_lib
from keras_mla.datasets.listing import Problems, Sample

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "Reader",
    "audio_reader",
    "build",
    "choose",
    "image_reader",
    "text_reader",
    "video_reader",
]

_logger = logging.getLogger("keras_mla")


@dataclasses.dataclass(frozen=True)
class Reader:
    """How one modality of a sample becomes an array.

    Args:
        decode: Reads a sample: `Sample -> array`, Pillow image, or list of
            them. What may be cached, as an array.
        dtype: Type of the array, as NumPy names it; `"object"` is text.
        shape: Shape after `finish`, `None` for a length that varies.
        finish: `(array, rng or None) -> array`, run in Python after
            `decode` or the cache; `rng` is given in training only.
        features: Run by TensorFlow on each sample.
        augment: Run by TensorFlow on each sample, in training only, and in
            order, so that its random draws do not depend on the workers.
        batched: Run by TensorFlow on each batch.
        key: What, beside the file, the result of `decode` depends on.
    """

    decode: Callable[[Sample], Any]
    dtype: str
    shape: tuple[int | None, ...]
    finish: Callable[[Any, np.random.Generator | None], Any] | None = None
    features: Callable[["tf.Tensor"], "tf.Tensor"] | None = None
    augment: Callable[["tf.Tensor"], "tf.Tensor"] | None = None
    batched: Callable[["tf.Tensor"], Any] | None = None
    key: str = ""


def audio_reader(
    settings: audio_lib.Fbank | audio_lib.STFT | None = None,
    modality: str = "audio",
) -> Reader:
    """Reads waveforms and turns them into spectrograms.

    Args:
        settings: `Fbank`, `STFT`, or an object with `rate`, `seconds` and
            the same methods. Defaults to `Fbank()`.
        modality: str. Where the path is in `Sample.inputs`.
    """
    chosen = settings or audio_lib.Fbank()

    def decode(sample: Sample) -> np.ndarray:
        return audio_lib.decode(
            sample.inputs[modality], chosen.rate, seconds=chosen.seconds
        )

    masked = chosen.time_mask or chosen.freq_mask
    return Reader(
        decode,
        "float32",
        (None,),
        features=chosen,
        augment=chosen.augment if masked else None,
        key=f"audio {chosen.rate} {chosen.seconds}",
    )


def image_reader(
    settings: image_lib.ImageSettings = image_lib.RESNET,
    modality: str = "image",
) -> Reader:
    """Reads images, crops and resizes them, and normalises whole batches.

    Args:
        settings: `ImageSettings`.
        modality: str. Where the path is in `Sample.inputs`.
    """

    def decode(sample: Sample) -> Any:
        return image_lib.open_image(sample.inputs[modality])

    return Reader(
        decode,
        "uint8",
        settings.shape,
        finish=settings.fit,
        batched=settings.normalize,
        key="image",
    )


def video_reader(
    settings: image_lib.ImageSettings = image_lib.RESNET,
    frames: int | None = 3,
    modality: str = "video",
) -> Reader:
    """Reads evenly spaced frames from a folder of images or a video.

    Args:
        settings: `ImageSettings`; a crop is the same in all frames.
        frames: int or `None`. Number of frames, as an axis before the height;
            `None` is the middle frame without that axis.
        modality: str. Where the path is in `Sample.inputs`.
    """

    def decode(sample: Sample) -> Any:
        path = sample.inputs[modality]
        span = None if os.path.isdir(path) else sample.span
        clip = video_lib.pictures(path, frames or 1, span)
        return clip if frames else clip[0]

    return Reader(
        decode,
        "uint8",
        ((frames,) if frames else ()) + settings.shape,
        finish=settings.fit,
        batched=settings.normalize,
        key=f"video {frames}",
    )


def text_reader(tokenizer: Callable[[Any], Any] | None = None) -> Reader:
    """Passes texts on, through a tokenizer where there is one.

    Args:
        tokenizer: Maps a string tensor `(batch,)` to arrays, such as those of
            `keras_mla.datasets.text`; `None` leaves strings, which only a
            model on TensorFlow takes.
    """

    def decode(sample: Sample) -> bytes:
        return sample.inputs["text"].encode()

    return Reader(decode, "object", (), batched=tokenizer)


class _Loader:
    """Decodes one sample, with the cache and the user's choice on errors."""

    def __init__(
        self,
        samples: Sequence[Sample],
        readers: Mapping[str, Reader],
        augment: bool,
        cache_dir: str | None,
        problems: Problems,
    ) -> None:
        self.samples = samples
        self.readers = readers
        self.augment = augment
        self.cache_dir = cache_dir
        self.problems = problems
        self.skipped: dict[str, str] = {}
        self.lock = threading.Lock()

    def __call__(self, index: np.int64, seed: np.int64) -> list[Any]:
        """Returns `[fine, *arrays]`."""
        sample = self.samples[int(index)]
        try:
            arrays = [
                self.read(name, reader, sample, int(seed))
                for name, reader in self.readers.items()
            ]
        except (ValueError, OSError, MemoryError) as error:
            message = f"{sample.source}: sample {sample.id!r}: {error}"
            if not self.problems.skip:
                raise ValueError(message) from error
            with self.lock:
                if sample.id not in self.skipped:
                    self.skipped[sample.id] = message
                    _logger.warning("Skipped: %s", message)
            return [np.False_, *(_blank(r) for r in self.readers.values())]
        return [np.True_, *arrays]

    def read(
        self,
        name: str,
        reader: Reader,
        sample: Sample,
        seed: int,
    ) -> Any:
        # Every modality draws from its own stream, so that leaving one out
        # does not change the others.
        rng = None
        if self.augment:
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        cached = self.cache_dir is not None and reader.key
        value = (
            self.from_cache(name, reader, sample)
            if cached
            else reader.decode(sample)
        )
        return reader.finish(value, rng) if reader.finish else value

    def from_cache(self, name: str, reader: Reader, sample: Sample) -> Any:
        assert self.cache_dir is not None
        path = sample.inputs[name]
        stat = os.stat(path)
        key = f"{path} {stat.st_mtime_ns} {stat.st_size} {sample.span} "
        digest = hashlib.sha256((key + reader.key).encode()).hexdigest()
        folder = os.path.join(self.cache_dir, digest[:2])
        file = os.path.join(folder, digest + ".npy")
        try:
            return np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            pass  # Not there yet, or damaged: made anew.
        value = reader.decode(sample)
        if isinstance(value, list):
            value = np.stack([np.asarray(part) for part in value])
        value = np.asarray(value)
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


def _blank(reader: Reader) -> Any:
    if reader.dtype == "object":
        return b""
    return np.zeros([1 if n is None else n for n in reader.shape], reader.dtype)


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
    presence: np.ndarray | None = None,
) -> "tf.data.Dataset":
    """Assembles the pipeline: shuffle, decode, features, batch, prefetch.

    Which samples, in which order and with which random crops, depends on
    `seed` and the epoch alone: not on the number of workers, nor on the
    machine. Later epochs of one dataset are shuffled and cropped anew.

    Args:
        samples: The samples, from a data set's `files`.
        readers: dict of `Reader`. One for each modality, in the model's
            order.
        batch_size: int or `None`. `None` gives single samples. The last batch
            holds what is left.
        training: bool. What `shuffle` and `augment` are if not given.
        shuffle: bool or `None`. Whether to shuffle all samples in each epoch.
        augment: bool or `None`. Whether to crop, flip and mask at random.
        seed: int. Defaults to `0`.
        workers: int or `None`. Samples decoded at the same time; `None` lets
            tf.data choose.
        cache_dir: str, path or `None`. A folder for decoded waveforms, images
            and frames, one `.npy` file each, found again as long as the
            original file is unchanged. Decoded images are larger than
            compressed ones: it pays for videos and resampled sound.
        on_error: `"raise"`, or `"skip"` to leave out what cannot be decoded.
            Then every such sample is logged once, as a warning of the logger
            `keras_mla`, and held in the dict `dataset.skipped`, by id.
        presence: bool array `(samples, modalities)` or `None`. Added to the
            inputs as `"presence"`, see `missing.missing_presence`.

    Returns:
        A `tf.data.Dataset` of `({modality: x}, label)`, labels int32.

    Raises:
        ValueError: If there are no samples, or `presence` does not fit. While
            iterating, a sample that cannot be decoded raises
            `tf.errors.InvalidArgumentError`, whose message names the list
            file and line, the sample, the file and the reason.
    """
    import tensorflow as tf

    if not samples:
        raise ValueError("There are no samples to load.")
    names = list(readers)
    shuffle = training if shuffle is None else shuffle
    augment = training if augment is None else augment
    if presence is not None:
        presence = np.asarray(presence, bool)
        if presence.shape != (len(samples), len(names)):
            raise ValueError(
                f"`presence` must have one row per sample and one column per "
                f"modality ({', '.join(names)}): {(len(samples), len(names))}."
                f" Received: presence.shape={presence.shape}"
            )
    problems = Problems(on_error)
    cache = None if cache_dir is None else os.path.abspath(cache_dir)
    loader = _Loader(samples, readers, augment, cache, problems)
    labels = tf.constant([s.label for s in samples], tf.int32)
    parallel = tf.data.AUTOTUNE if workers is None else workers
    # Nothing here needs a translation of Python's own `if` and `for`.
    plain = tf.autograph.experimental.do_not_convert
    types = [tf.bool] + [
        tf.string if r.dtype == "object" else tf.as_dtype(r.dtype)
        for r in readers.values()
    ]

    @plain
    def read(index: Any, draw: Any) -> tuple:
        fine, *arrays = tf.numpy_function(loader, [index, draw], types)
        fine.set_shape(())
        x = {}
        for (name, reader), array in zip(readers.items(), arrays, strict=True):
            array.set_shape(reader.shape)
            x[name] = reader.features(array) if reader.features else array
        if presence is not None:
            x["presence"] = tf.gather(tf.constant(presence), index)
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
    dataset.skipped = loader.skipped
    return dataset


def choose(
    readers: Mapping[str, Reader], modalities: Sequence[str] | None
) -> dict[str, Reader]:
    """Returns the readers of the modalities asked for, in that order.

    Raises:
        ValueError: If a modality is unknown or there is none.
    """
    names = list(readers) if modalities is None else list(modalities)
    if not names or not set(names) <= set(readers):
        raise ValueError(
            f"`modalities` must be some of {', '.join(readers)}. "
            f"Received: modalities={modalities!r}"
        )
    return {name: readers[name] for name in names}
