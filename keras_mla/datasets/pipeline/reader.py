"""What reads one modality of a sample, made from the settings of a reader."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_mla.datasets.listing.sample import Sample
from keras_mla.datasets.readers import audio as audio_lib
from keras_mla.datasets.readers import image as image_lib
from keras_mla.datasets.readers import video as video_lib


@dataclasses.dataclass(frozen=True)
class Reader:
    """The steps that make an array of one modality of a sample.

    `decode` and `finish` run in Python. `features` and `batched` get tensors
    inside the graph of tf.data, and NumPy arrays in the Python engine, where
    they may return arrays or tensors of any backend. Worker processes get a
    pickle of all steps but `batched`.

    Args:
        decode: `Sample -> array`, Pillow image, or list of either. Reads a
            sample. The result may be cached, as an array.
        dtype: str. Type of the array, as NumPy names it; `"object"` is text.
        shape: tuple of int. Shape after `finish`, with `None` for a length
            that varies.
        finish: `(array, rng) -> array`. Runs after `decode` or the cache.
            `rng` is a `np.random.Generator`, or `None` except in training.
        features: `array -> array`. Runs on each sample.
        augment: `(array, rng) -> array`. Runs on each sample after
            `features`, in training only, with a NumPy array on both engines.
            `rng` is a `np.random.Generator`.
        batched: `array -> arrays`. Runs on each batch.
        key: str. Names what the result of `decode` depends on beside the
            file, if the modality's input is the path of a file or folder.
            With an empty key nothing is cached.

    Example:
    >>> from keras_mla.datasets import pipeline
    >>> def decode(sample):
    ...     return np.float32([len(sample.inputs["text"])])
    >>> length = pipeline.Reader(decode, dtype="float32", shape=(1,))
    >>> sample = pipeline.Sample("a", 0, {"text": "Hi"}, "")
    >>> length.decode(sample)
    array([2.], dtype=float32)
    """

    decode: Callable[[Sample], Any]
    dtype: str
    shape: tuple[int | None, ...]
    finish: Callable[[Any, np.random.Generator | None], Any] | None = None
    features: Callable[[Any], Any] | None = None
    augment: Callable[[np.ndarray, np.random.Generator], Any] | None = None
    batched: Callable[[Any], Any] | None = None
    key: str = ""


def audio_reader(
    settings: audio_lib.Fbank | audio_lib.STFT | None = None,
    modality: str = "audio",
) -> Reader:
    """Returns a reader of waveforms, which it turns into spectrograms.

    Args:
        settings: `Fbank`, `STFT`, or an object with `rate`, `seconds` and
            the same methods. Defaults to `Fbank()`.
        modality: str. Key of the path in `Sample.inputs`. Defaults to
            `"audio"`.
    """
    chosen = settings or audio_lib.Fbank()
    masked = chosen.time_mask or chosen.freq_mask
    return Reader(
        functools.partial(_waveform, modality, chosen.rate, chosen.seconds),
        "float32",
        (None,),
        features=chosen,
        augment=chosen.augment if masked else None,
        key=f"audio {chosen.rate} {chosen.seconds}",
    )


def _waveform(
    modality: str, rate: int, seconds: float, sample: Sample
) -> np.ndarray:
    return audio_lib.decode(sample.inputs[modality], rate, seconds=seconds)


def image_reader(
    settings: image_lib.ImageSettings = image_lib.RESNET,
    modality: str = "image",
    pictures: int | None = None,
) -> Reader:
    """Returns a reader of images: it crops, resizes and normalises them.

    Args:
        settings: `ImageSettings`. Whole batches are normalised. Defaults to
            `RESNET`.
        modality: str. Key of the path in `Sample.inputs`. Defaults to
            `"image"`.
        pictures: int. Number of pictures of each sample, as an axis before
            the height. `Sample.inputs` then has a list or tuple of paths. Of
            more pictures the reader takes evenly spaced ones; fewer pictures
            are repeated evenly. In training, each picture gets a crop of its
            own. They are not cached. Defaults to `None`: one path, and no
            axis.

    Raises:
        ValueError: If `pictures` is less than 1.

    Example:
    >>> from keras_mla.datasets import image, pipeline
    >>> for i in range(3):
    ...     keras.utils.save_img(f"{i}.png", np.full((9, 12, 3), 60 * i))
    >>> photos = [["0.png"], ["0.png", "1.png", "2.png"]]
    >>> samples = [
    ...     pipeline.Sample(str(i), i, {"photos": paths}, "my list")
    ...     for i, paths in enumerate(photos)
    ... ]
    >>> settings = image.ImageSettings(size=8)
    >>> reader = pipeline.image_reader(settings, "photos", pictures=2)
    >>> data = pipeline.build(samples, {"photos": reader}, engine="python")
    >>> data[0][0]["photos"].shape
    (2, 2, 8, 8, 3)
    """
    if pictures is None:
        return Reader(
            functools.partial(_picture, modality),
            "uint8",
            settings.shape,
            finish=settings.fit,
            batched=settings.normalize,
            # Not "image": version 0.1 turned no picture upright.
            key="upright image",
        )
    if pictures < 1:
        raise ValueError(
            f"`pictures` must be at least 1. Received: pictures={pictures}"
        )
    return Reader(
        functools.partial(_pictures, modality, pictures),
        "uint8",
        (pictures, *settings.shape),
        finish=functools.partial(_fit_each, settings),
        batched=settings.normalize,
    )


def _picture(modality: str, sample: Sample) -> Any:
    path = sample.inputs[modality]
    if isinstance(path, list | tuple):
        raise ValueError(
            f"The sample has {len(path)} pictures where the reader expects "
            "one: give `image_reader` a number of `pictures`."
        )
    return image_lib.open_image(path)


def _pictures(modality: str, count: int, sample: Sample) -> list[Any]:
    paths = sample.inputs[modality]
    paths = list(paths) if isinstance(paths, list | tuple) else [paths]
    if not paths:
        raise ValueError("The sample's list of pictures is empty.")
    places = video_lib.even_indices(len(paths), count)
    opened = {i: image_lib.open_image(paths[i]) for i in set(places)}
    return [opened[i] for i in places]


def _fit_each(
    settings: image_lib.ImageSettings,
    pictures: list[Any],
    rng: np.random.Generator | None,
) -> np.ndarray:
    return np.stack([settings.fit(picture, rng) for picture in pictures])


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
        modality: str. Key of the path in `Sample.inputs`. Defaults to
            `"video"`.
    """
    return Reader(
        functools.partial(_frames, modality, frames),
        "uint8",
        ((frames,) if frames else ()) + settings.shape,
        finish=settings.fit,
        batched=settings.normalize,
        key=f"upright video {frames}",
    )


def _frames(modality: str, frames: int | None, sample: Sample) -> Any:
    path = sample.inputs[modality]
    span = None if os.path.isdir(path) else sample.span
    clip = video_lib.pictures(path, frames or 1, span)
    return clip if frames else clip[0]


def text_reader(
    tokenizer: Callable[[Any], Any] | None = None, modality: str = "text"
) -> Reader:
    """Returns a reader of texts, with or without a tokenizer.

    Args:
        tokenizer: callable. Maps texts `(batch,)` to arrays, such as the
            tokenizers of `keras_mla.datasets.text`. In tf.data the texts are
            a string tensor, in the Python engine an array of `str`. `None`
            leaves texts as bytes in UTF-8, which only a model on TensorFlow
            takes.
        modality: str. Key of the text in `Sample.inputs`. Defaults to
            `"text"`.
    """
    return Reader(
        functools.partial(_text, modality),
        "object",
        (),
        batched=None if tokenizer is None else _Tokenize(tokenizer),
    )


def _text(modality: str, sample: Sample) -> bytes:
    return sample.inputs[modality].encode()


@dataclasses.dataclass(frozen=True)
class _Tokenize:
    """Hands texts to a tokenizer, in NumPy as `str`."""

    tokenizer: Callable[[Any], Any]

    def __call__(self, texts: Any) -> Any:
        if isinstance(texts, np.ndarray):
            words = [text.decode() for text in texts]
            texts = np.empty(len(words), object)
            texts[:] = words
        return self.tokenizer(texts)


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
