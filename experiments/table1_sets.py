"""The paper's data sets: flags, samples, readers and encoders of each.

Data sets that publish no validation split give a share of their training list.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import m3ae
from absl import flags

from keras_mla import encoders
from keras_mla.comparison.data import SPLITS
from keras_mla.datasets import (
    audio,
    crema_d,
    food101,
    iemocap,
    image,
    kinetics_sounds,
    mvsa,
    pipeline,
)
from keras_mla.datasets.listing import Sample

Samples = dict[str, list[Sample]]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What models of a data set are made of.

    Attributes:
        readers: dict of modality to its reader.
        encoders: dict of modality to a function that returns a new encoder.
        compare: dict of further arguments of `compare`.
    """

    readers: dict[str, pipeline.Reader]
    encoders: dict[str, Callable[[], Any]]
    compare: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Set:
    """A data set.

    Attributes:
        title: str. Its name in tables.
        define: Function that defines the set's flags.
        samples: Function of flags that returns the samples of each split.
        classes: Function of flags that returns the classes' names.
        inputs: Function of flags, the folder of the results and the training
            samples that returns `Inputs`.
        defaults: dict of defaults of the flags of `keras-mla compare`.
    """

    title: str
    define: Callable[[flags.FlagValues], None]
    samples: Callable[[flags.FlagValues], Samples]
    classes: Callable[[flags.FlagValues], Sequence[str]]
    inputs: Callable[[flags.FlagValues, pathlib.Path, list[Sample]], Inputs]
    defaults: Mapping[str, Any]


def _files(module: Any, values: flags.FlagValues, **options: Any) -> Samples:
    return {
        split: module.files(
            values["data_dir"].value,
            split,
            on_error=values["on_error"].value,
            **options,
        )
        for split in SPLITS
    }


def _share(values: flags.FlagValues) -> None:
    flags.DEFINE_float(
        "validation_share",
        0.1,
        "Share of the training list that is validation.",
        flag_values=values,
    )


def _sound(values: flags.FlagValues, frames: int, mels: int) -> None:
    define = functools.partial(flags.DEFINE_integer, flag_values=values)
    define("audio_frames", frames, "Length in steps of 10 ms.", lower_bound=1)
    define("mels", mels, "Height of a spectrogram.", lower_bound=1)


# === Sound and video: ResNet-18, new ===


def _define_clips(values: flags.FlagValues) -> None:
    _share(values)
    _sound(values, 1024, 128)
    define = functools.partial(flags.DEFINE_integer, flag_values=values)
    define("frames", 3, "Frames of a clip.", lower_bound=1)
    define("image_size", 224, "Height and width of a frame.", lower_bound=32)
    define("decay_every", 70, "Epochs until a tenth of the rate.")
    flags.DEFINE_float("momentum", 0.9, "Momentum of SGD.", flag_values=values)


def _define_crema_d(values: flags.FlagValues) -> None:
    _define_clips(values)
    flags.DEFINE_enum(
        "protocol",
        "list",
        ["list", "actor"],
        "The split: the list's, or one that keeps actors apart.",
        flag_values=values,
    )


def _clips(
    statistics: tuple[float, float],
    values: flags.FlagValues,
    output: pathlib.Path,
    train: list[Sample],
) -> Inputs:
    mean, std = statistics
    fbank = audio.Fbank(
        frames=values["audio_frames"].value,
        mels=values["mels"].value,
        mean=mean,
        std=std,
    )
    size, frames = values["image_size"].value, values["frames"].value
    picture = dataclasses.replace(image.RESNET, size=size)
    every, momentum = values["decay_every"].value, values["momentum"].value

    def decayed(epoch: int, rate: float) -> float:
        """Returns the rate of an epoch, given that of the epoch before."""
        return rate * 0.1 if epoch > 0 and epoch % every == 0 else rate

    def schedule() -> Any:
        return keras.callbacks.LearningRateScheduler(decayed)

    def sgd(rate: float, decay: float) -> Any:
        return keras.optimizers.SGD(rate, momentum, weight_decay=decay)

    compare: dict[str, Any] = {"callbacks": [schedule]}
    if values["optimizer"].value == "sgd":
        compare["optimizer"] = sgd
    return Inputs(
        {
            "audio": pipeline.audio_reader(fbank),
            "video": pipeline.video_reader(picture, frames),
        },
        {
            "audio": lambda: encoders.audio_resnet18(fbank.shape),
            "video": lambda: encoders.video_resnet18((frames, *picture.shape)),
        },
        compare,
    )


_CLIPS = {
    "optimizer": "sgd",
    "learning_rate": ["1e-3"],
    "weight_decay": ["1e-4"],
    "epochs": 100,
    "batch_size": 64,
}

# === Pictures and texts: M3AE, new and small, or converted ===


def _define_food101(values: flags.FlagValues) -> None:
    _share(values)
    m3ae.define_flags(values, ("image", "text"))


def _define_mvsa(values: flags.FlagValues) -> None:
    m3ae.define_flags(values, ("image", "text"))


def _unless_dev(data_dir: str, share: float) -> dict[str, Any]:
    """Returns options of `food101.files`: a share, unless there is a dev."""
    folder = pathlib.Path(data_dir).expanduser()
    dev = os.path.isfile(folder / "dev.jsonl")
    return {} if dev else {"validation_share": share}


def _food101(values: flags.FlagValues) -> Samples:
    share = values["validation_share"].value
    options = _unless_dev(values["data_dir"].value, share)
    return _files(food101, values, **options)


def _posts(
    values: flags.FlagValues, output: pathlib.Path, train: list[Sample]
) -> Inputs:
    words = m3ae.vocabulary(values, output, train)
    return Inputs(
        {
            "image": pipeline.image_reader(m3ae.image_settings(values)),
            "text": m3ae.text_reader(values, words),
        },
        m3ae.image_and_text(values, words),
    )


_POSTS = {
    "learning_rate": ["3e-4"],
    "weight_decay": ["0.05"],
    "epochs": 20,
    "batch_size": 32,
}

# === Sound, pictures and texts: CAV-MAE and M3AE, new and small, or converted


def _define_iemocap(values: flags.FlagValues) -> None:
    m3ae.define_flags(values, ("audio", "image", "text"))
    _sound(values, 512, 64)
    flags.DEFINE_enum(
        "protocol",
        "random",
        ["random", "session"],
        "The split: at random, or one that keeps a session apart.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "classes", 4, "Number of emotions, 4 or 6.", flag_values=values
    )


def _iemocap(values: flags.FlagValues) -> Samples:
    protocol = values["protocol"].value
    return _files(
        iemocap,
        values,
        classes=values["classes"].value,
        protocol=protocol,
        validation_share=0.1 if protocol == "session" else 0.0,
    )


def _utterances(
    values: flags.FlagValues, output: pathlib.Path, train: list[Sample]
) -> Inputs:
    words = m3ae.vocabulary(values, output, train)
    fbank = audio.Fbank(
        frames=values["audio_frames"].value, mels=values["mels"].value
    )
    pictures = m3ae.image_settings(values)
    sound = functools.partial(
        m3ae.encoder,
        values,
        "audio",
        encoders.CAVMAE,
        input_shape=fbank.shape,
    )
    return Inputs(
        {
            "audio": pipeline.audio_reader(fbank),
            "image": pipeline.video_reader(pictures, None, "image"),
            "text": m3ae.text_reader(values, words),
        },
        {"audio": sound, **m3ae.image_and_text(values, words)},
    )


SETS = {
    "crema_d": Set(
        "CREMA-D",
        _define_crema_d,
        lambda values: _files(
            crema_d,
            values,
            protocol=values["protocol"].value,
            validation_share=values["validation_share"].value,
        ),
        lambda values: crema_d.class_names,
        functools.partial(_clips, audio.AUDIOSET),
        _CLIPS,
    ),
    "kinetics_sounds": Set(
        "Kinetics-Sounds",
        _define_clips,
        lambda values: _files(
            kinetics_sounds,
            values,
            validation_share=values["validation_share"].value,
        ),
        lambda values: kinetics_sounds.class_names(values["data_dir"].value),
        functools.partial(_clips, audio.KINETICS_SOUNDS),
        _CLIPS,
    ),
    "food101": Set(
        "Food-101",
        _define_food101,
        _food101,
        lambda values: food101.class_names(values["data_dir"].value),
        _posts,
        _POSTS,
    ),
    "mvsa": Set(
        "MVSA-Single",
        _define_mvsa,
        lambda values: _files(mvsa, values),
        lambda values: mvsa.class_names,
        _posts,
        _POSTS,
    ),
    "iemocap": Set(
        "IEMOCAP",
        _define_iemocap,
        _iemocap,
        lambda values: iemocap.class_names(values["classes"].value),
        _utterances,
        {**_POSTS, "epochs": 30},
    ),
}
