"""What reads one modality of a sample, made from the settings of a reader."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_mla.datasets.listing.sample import Sample
from keras_mla.datasets.readers import audio as audio_lib
from keras_mla.datasets.readers import image as image_lib
from keras_mla.datasets.readers import video as video_lib

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Reader:
    """The steps that make an array of one modality of a sample.

    Args:
        decode: `Sample -> array`, Pillow image, or list of either. Reads a
            sample. The result may be cached, as an array.
        dtype: str. Type of the array, as NumPy names it; `"object"` is text.
        shape: tuple of int. Shape after `finish`, with `None` for a length
            that varies.
        finish: `(array, rng) -> array`. Runs in Python after `decode` or the
            cache; `rng` is `None` except in training.
        features: `tensor -> tensor`. Runs in TensorFlow on each sample.
        augment: `tensor -> tensor`. Runs in TensorFlow on each sample, in
            training only, and in order, so that its random draws do not
            depend on the workers.
        batched: `tensor -> tensors`. Runs in TensorFlow on each batch.
        key: str. Names what the result of `decode` depends on beside the
            file. With an empty key nothing is cached.

    Example:
    >>> from keras_mla.datasets import pipeline
    >>> def decode(sample):
    ...     return np.float32([len(sample.inputs["text"])])
    >>> length = pipeline.Reader(decode, dtype="float32", shape=(1,))
    >>> sample = keras_mla.datasets.listing.Sample("a", 0, {"text": "Hi"}, "")
    >>> length.decode(sample)
    array([2.], dtype=float32)
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
    """Returns a reader of waveforms, which it turns into spectrograms.

    Args:
        settings: `Fbank`, `STFT`, or an object with `rate`, `seconds` and
            the same methods. Defaults to `Fbank()`.
        modality: str. Key of the path in `Sample.inputs`.
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
    """Returns a reader of images: it crops, resizes and normalises them.

    Args:
        settings: `ImageSettings`. Whole batches are normalised. Defaults to
            `RESNET`.
        modality: str. Key of the path in `Sample.inputs`.
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
    """Returns a reader of evenly spaced frames, of a folder or a video.

    Args:
        settings: `ImageSettings`. All frames get the same crop. Defaults to
            `RESNET`.
        frames: int. Number of frames, as an axis before the height; or
            `None` for the middle frame without that axis. Defaults to `3`.
        modality: str. Key of the path in `Sample.inputs`.
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
    """Returns a reader of texts, with or without a tokenizer.

    Args:
        tokenizer: callable. Maps a string tensor `(batch,)` to arrays, such
            as the tokenizers of `keras_mla.datasets.text`. `None` leaves
            strings, which only a model on TensorFlow takes.
    """

    def decode(sample: Sample) -> bytes:
        return sample.inputs["text"].encode()

    return Reader(decode, "object", (), batched=tokenizer)


def choose(
    readers: Mapping[str, Reader], modalities: Sequence[str] | None
) -> dict[str, Reader]:
    """Returns the readers of the given modalities, in the order given.

    Args:
        readers: dict of modality name to `Reader`.
        modalities: Names of modalities, or `None` for all.

    Raises:
        ValueError: If a modality is unknown or `modalities` is empty.

    Example:
    >>> from keras_mla.datasets import pipeline
    >>> text = pipeline.text_reader()
    >>> list(pipeline.choose({"title": text, "body": text}, ["body"]))
    ['body']
    """
    names = list(readers) if modalities is None else list(modalities)
    if not names or not set(names) <= set(readers):
        raise ValueError(
            f"`modalities` must be some of {', '.join(readers)}. "
            f"Received: modalities={modalities!r}"
        )
    return {name: readers[name] for name in names}
