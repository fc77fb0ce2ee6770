"""CREMA-D: acted emotions, as sound and video of the face."""

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_mla.datasets import listing, pipeline
from keras_mla.datasets.listing import Sample
from keras_mla.datasets.readers.audio import STFT, Fbank
from keras_mla.datasets.readers.image import RESNET, ImageSettings
from keras_mla.datasets.sets import audio_video, loading

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "class_names",
    "files",
    "load",
]

class_names = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
"""Neutral, happy, sad, fearful, disgusted, angry: label i is name i."""

_CLIP = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{2})")
_WORDS = {"neutral": "NEU", "happy": "HAP", "sad": "SAD", "fear": "FEA"}
_WORDS |= {"disgust": "DIS", "angry": "ANG", "anger": "ANG"}
# The columns before the one of the clips.
_OWNERS = ("Stimulus_Number,Filename", ",FileName,VoiceVote")
# The lists name it so, and the owners' sound has one letter less.
_SHORT = {"1040_ITH_SAD_XX": "1040_ITH_SAD_X"}
_PUBLISHED = {"train": 6698, "test": 744}
_CLIPS = 7442


def files(
    data_dir: str | os.PathLike,
    split: str = "train",
    *,
    protocol: str = "list",
    list_file: str | os.PathLike | None = None,
    validation_share: float = 0.0,
    seed: int = 0,
    on_error: str = "raise",
) -> list[Sample]:
    """Lists the clips of a split, without decoding anything.

    The folder holds `AudioWAV/<clip>.wav` and either
    `Image-01-FPS/<clip>/*.jpg` (as `keras_mla.datasets.prepare` makes them)
    or `VideoFlash/<clip>.flv`. Without `AudioWAV` the sound is taken from
    the video. Labels come from the clips' names, such as
    `1012_MTI_SAD_XX`: actor, sentence, emotion, level.

    These lists are read, and told apart by their lines:

    - `1012_MTI_SAD_XX,SAD`: `train.csv`, `test.csv` and `data.csv` of OGM-GE,
      PMR and others;
    - `1012_MTI_SAD_XX.flv Sad`: `my_train_cre.txt` and `my_test_cre.txt` of
      MLA;
    - the owners' `SentenceFilenames.csv` and `summaryTable.csv`, which name
      all clips: for `protocol="actor"`. The raters' votes are not read.

    Args:
        data_dir: str or path. The folder.
        split: `"train"`, `"validation"` or `"test"`. Defaults to `"train"`.
        protocol: `"list"`, the customary split by list files, with 6698 and
            744 clips; or `"actor"`, 70, 10 and 20 % of the actors, so that no
            actor is in two splits. In the customary split every actor is in
            both. Defaults to `"list"`.
        list_file: str or path. The list of the split (for validation, the
            list of training); for `protocol="actor"` a list of all clips.
            Defaults to `<split>.csv`, `<split>.txt` or `my_<split>_cre.txt`
            in `data_dir`, and to the files on disk.
        validation_share: float. With `protocol="list"`, the share of the
            training list that is `"validation"` instead of `"train"`.
            Defaults to `0.0`.
        seed: int. Seed of the random choices. Defaults to `0`.
        on_error: `"raise"`; `"skip"` to leave out wrong lines, and
            warn; or `"absent"`: a modality whose file is missing
            is absent. Defaults to `"raise"`.

    Returns:
        list of `Sample` with the inputs `"audio"` and `"video"`.

    Raises:
        ValueError: If the folder, the list or all its files are missing, or a
            line is wrong. The message names file and line.

    Warns:
        UserWarning: If files are missing, or the number of clips is not the
            published one.

    Example:
    >>> import pathlib
    >>> from keras_mla.datasets import crema_d
    >>> video = pathlib.Path("VideoFlash/1012_MTI_SAD_XX.flv")
    >>> video.parent.mkdir()
    >>> video.touch()
    >>> pathlib.Path("mine.csv").write_text("1012_MTI_SAD_XX,SAD")
    19
    >>> [sample] = crema_d.files(".", list_file="mine.csv")
    >>> crema_d.class_names[sample.label], sample.inputs["video"]
    ('SAD', '.../VideoFlash/1012_MTI_SAD_XX.flv')

    Reference:
        Cao et al., "CREMA-D: Crowd-sourced Emotional Multimodal Actors
        Dataset", IEEE Transactions on Affective Computing 2014.
    """
    listing.check_split(split)
    root = listing.data_folder(data_dir)
    problems = listing.Problems(on_error)
    if protocol == "actor":
        if list_file is None:
            clips = [_sample(root, clip, clip) for clip in _on_disk(root)]
        else:
            path = listing.find_list(root, "train", list_file, "csv")
            listed = listing.make_samples(
                listing.read_lines(path),
                lambda source, line: _from_line(root, line, source),
                problems,
            )
            clips = listing.keep_existing(listed, "CREMA-D", problems)
            problems.warn("CREMA-D")
        listing.check_count("CREMA-D", len(clips), _CLIPS)
        actors = sorted({clip.id[:4] for clip in clips})
        shares = {"train": 0.7, "validation": 0.1, "test": 0.2}
        chosen = set(listing.partition(actors, shares, seed)[split])
        return [clip for clip in clips if clip.id[:4] in chosen]
    if protocol != "list":
        raise ValueError(
            '`protocol` must be "list" or "actor". '
            f"Received: protocol={protocol!r}"
        )

    samples = audio_video.list_clips(
        "CREMA-D",
        root,
        split,
        lambda source, line: _from_line(root, line, source),
        problems,
        read=lambda path, _: listing.read_lines(path),
        list_file=list_file,
        names=["my_{}_cre.txt"],
        published=_PUBLISHED,
        validation_share=validation_share,
        seed=seed,
    )
    problems.warn(f"CREMA-D {split}")
    return samples


def _on_disk(root: str) -> list[str]:
    for folder in ("AudioWAV", "VideoFlash", audio_video.FRAMES):
        path = os.path.join(root, folder)
        if os.path.isdir(path):
            names = {os.path.splitext(f)[0] for f in os.listdir(path)}
            whole = {short: clip for clip, short in _SHORT.items()}
            names = {whole.get(name, name) for name in names}
            clips = sorted(n for n in names if _CLIP.fullmatch(n))
            if clips:
                return [c for c in clips if c.split("_")[2] in class_names]
    raise ValueError(
        f"Found no clips in {root!r}: neither AudioWAV/<clip>.wav nor "
        "VideoFlash/<clip>.flv."
    )


def _from_line(root: str, line: str, source: str) -> Sample | None:
    if line.replace('"', "").startswith(_OWNERS):
        return None
    number, *owners = (f.strip(' "') for f in line.split(",", maxsplit=2))
    clip, *rest = re.split(r"[,\s]+", line.strip(), maxsplit=1)
    word = rest[0].strip() if rest else ""
    if owners and number.isdigit():
        clip, word = owners[0], owners[0][9:12]
    clip = os.path.splitext(clip)[0]
    match = _CLIP.fullmatch(clip)
    named = _WORDS.get(word.lower(), word.upper())
    if match is None or match[3] not in class_names or named != match[3]:
        raise ValueError(
            f"{source}: expected a clip and its emotion, which agree, such as "
            f"'1012_MTI_SAD_XX.flv Sad' or '1012_MTI_SAD_XX,SAD'. "
            f"Received: line={line[:200]!r}"
        )
    return _sample(root, clip, source)


def _sample(root: str, clip: str, source: str) -> Sample:
    def find(folder: str, extension: str) -> str:
        path = listing.safe_path(root, f"{folder}/{clip}{extension}", source)
        if clip in _SHORT and not os.path.exists(path):
            name = f"{folder}/{_SHORT[clip]}{extension}"
            short = listing.safe_path(root, name, source)
            return short if os.path.exists(short) else path
        return path

    frames = find(audio_video.FRAMES, "")
    video = find("VideoFlash", ".flv")
    audio = find("AudioWAV", ".wav")
    has_audio = os.path.isdir(os.path.join(root, "AudioWAV"))
    inputs = audio_video.inputs(audio, frames, video, has_audio)
    label = class_names.index(clip.split("_")[2])
    return Sample(clip, label, inputs, source)


def load(
    data_dir: str | os.PathLike,
    split: str = "train",
    *,
    modalities: Sequence[str] | None = None,
    audio: Fbank | STFT | None = None,
    image: ImageSettings = RESNET,
    frames: int = 3,
    training: bool | None = None,
    seed: int = 0,
    on_error: str = "raise",
    protocol: str = "list",
    list_file: str | os.PathLike | None = None,
    validation_share: float = 0.0,
    **options: Any,
) -> "tf.data.Dataset | pipeline.Batches":
    """Loads a split as batches of `({"audio", "video"}, label)`.

    Args:
        data_dir: str or path. The folder, see `files`.
        split: `"train"`, `"validation"` or `"test"`. Defaults to `"train"`.
        modalities: Some of `"audio"` and `"video"`. Defaults to both.
        audio: `Fbank` or `STFT`. Defaults to `Fbank()`.
        image: `ImageSettings` of the frames. Defaults to `RESNET`.
        frames: int. Evenly spaced frames of each clip. Defaults to `3`.
        training: bool. Whether to shuffle, crop, flip and mask at random.
            Defaults to whether the split is `"train"`.
        seed: int. Seed of every random choice. Defaults to `0`.
        on_error: `"raise"`, `"skip"` or `"absent"`, for lines and for files,
            see `files` and `pipeline.build`. Defaults to `"raise"`.
        protocol: See `files`.
        list_file: See `files`.
        validation_share: See `files`.
        **options: `batch_size`, `workers`, `cache_dir`, `presence`,
            `shuffle`, `augment`, `engine` and `use_multiprocessing` of
            `pipeline.build`.

    Returns:
        A `tf.data.Dataset`, or a `keras.utils.PyDataset` (see `engine`), of
        `"audio"`: float32 `(batch, 1024, 128, 1)`, `"video"`: float32
        `(batch, frames, 224, 224, 3)`, label: int32.

    Raises:
        ValueError: See `files` and `pipeline.build`.

    Example:
    >>> import pathlib
    >>> from keras_mla.datasets import crema_d
    >>> video = pathlib.Path("VideoFlash/1012_MTI_SAD_XX.flv")
    >>> video.parent.mkdir()
    >>> video.touch()
    >>> pathlib.Path("mine.csv").write_text("1012_MTI_SAD_XX,SAD")
    19
    >>> data = crema_d.load(".", list_file="mine.csv", frames=3)
    >>> {name: tuple(x.shape) for name, x in data.element_spec[0].items()}
    {'audio': (None, 1024, 128, 1), 'video': (None, 3, 224, 224, 3)}
    """
    samples = files(
        data_dir,
        split,
        protocol=protocol,
        list_file=list_file,
        validation_share=validation_share,
        seed=seed,
        on_error=on_error,
    )
    return loading.load_split(
        samples,
        audio_video.readers(audio, image, frames),
        split,
        modalities,
        training,
        seed=seed,
        on_error=on_error,
        **options,
    )
