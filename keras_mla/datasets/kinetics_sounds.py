"""Kinetics-Sounds: actions of Kinetics that can be seen and heard."""

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_mla.datasets import listing, pipeline
from keras_mla.datasets.audio import STFT, Fbank
from keras_mla.datasets.image import RESNET, ImageSettings
from keras_mla.datasets.listing import Sample

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "class_names",
    "files",
    "load",
]

_CLASSES = 31
_PUBLISHED = {"train": 14799, "test": 2597}
_VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".flv")


def class_names(
    data_dir: str | os.PathLike, list_file: str | os.PathLike | None = None
) -> tuple[str, ...]:
    """Returns the classes' names, sorted: label i is the i-th.

    They stand in the training list, not here, since the 31 classes are a
    selection from Kinetics-400 whose spelling differs between copies. If the
    list gives numbers, the names are these numbers.

    Args:
        data_dir: str or path. The folder, see `files`.
        list_file: str, path or `None`. The training list.
    """
    root = listing.data_folder(data_dir)
    path = listing.find_list(root, "train", list_file, "csv txt")
    labels = set()
    for source, line in listing.read_lines(path):
        try:
            labels.add(_parse(line, source)[1])
        except ValueError:
            continue  # `files` reports it.
    if labels and all(label.isdigit() for label in labels):
        return tuple(str(i) for i in range(max(map(int, labels)) + 1))
    return tuple(sorted(labels))


def files(
    data_dir: str | os.PathLike,
    split: str = "train",
    *,
    list_file: str | os.PathLike | None = None,
    classes: Sequence[str] | None = None,
    validation_share: float = 0.0,
    seed: int = 0,
    on_error: str = "raise",
) -> list[Sample]:
    """Lists the clips of a split, without decoding anything.

    The folder holds, for each clip of the list, `audio/<clip>.wav` and
    `Image-01-FPS/<clip>/*.jpg`, as `keras_mla.datasets.prepare` makes them,
    or `videos/<clip>.mp4` (or mkv, webm, avi, flv) instead of either. A list
    line is `<youtube id>_<start>_<end>,10,<class>`: clip, seconds, class by
    name or number.

    Args:
        data_dir: str or path. The folder.
        split: `"train"`, `"validation"` or `"test"`.
        list_file: str, path or `None`. The list of the split (for validation
            that of training). Defaults to `<split>.csv` or `<split>.txt` in
            `data_dir`.
        classes: The classes' names. Defaults to `class_names(data_dir)`.
        validation_share: float. Share of the training list that is
            `"validation"` instead of `"train"`.
        seed: int. Chooses that share. Defaults to `0`.
        on_error: `"raise"`, or `"skip"` to leave out wrong lines and warn.

    Returns:
        list of `Sample` with the inputs `"audio"` and `"video"`.

    Raises:
        ValueError: If the folder, the list or all its files are missing, or a
            line is wrong: its message names file and line.

    Warns:
        UserWarning: If files are missing, or the number of clips or classes
            is not the published one (14799, 2597; 31).

    Example:
    ```python
    train = kinetics_sounds.files("KS", "train", validation_share=0.1)
    ```

    Reference:
        Arandjelovic and Zisserman, "Look, Listen and Learn", ICCV 2017.
    """
    listing.check_split(split, ("train", "validation", "test"))
    root = listing.data_folder(data_dir)
    problems = listing.Problems(on_error)
    if classes is None:
        # A list file given for the test split is no list of the classes.
        own = None if split == "test" else list_file
        classes = class_names(root, own)
    listing.check_count("Kinetics-Sounds classes", len(classes), _CLASSES)
    labels = {name: i for i, name in enumerate(classes)}

    def make(source: str, line: str) -> Sample:
        clip, label = _parse(line, source)
        if label not in labels:
            raise ValueError(
                f"{source}: the class is not one of the {len(labels)} of the "
                f"training list. Received: class={label!r}"
            )
        return Sample(clip, labels[label], _inputs(root, clip, source), source)

    def listed(part: str) -> list[Sample]:
        path = listing.find_list(root, part, list_file, "csv txt")
        lines = listing.read_lines(path)
        samples = listing.make_samples(lines, make, problems)
        kept = listing.keep_existing(samples, f"Kinetics-Sounds {part}")
        if list_file is None:
            published = _PUBLISHED[part]
            listing.check_count(f"Kinetics-Sounds {part}", len(kept), published)
        return kept

    samples = listing.carve_validation(split, listed, validation_share, seed)
    problems.warn(f"Kinetics-Sounds {split}")
    return samples


def _parse(line: str, source: str) -> tuple[str, str]:
    fields = [field.strip() for field in line.split(",", 2)]
    if (
        len(fields) != 3
        or not re.fullmatch(r"[\w-]+_\d+_\d+", fields[0])
        or not fields[2]
    ):
        raise ValueError(
            f"{source}: expected '<youtube id>_<start>_<end>,<seconds>,"
            f"<class>'. Received: line={line[:200]!r}"
        )
    return fields[0], fields[2]


def _inputs(root: str, clip: str, source: str) -> dict[str, str]:
    audio = listing.safe_path(root, f"audio/{clip}.wav", source)
    frames = listing.safe_path(root, f"Image-01-FPS/{clip}", source)
    video = frames
    for extension in _VIDEOS:
        path = listing.safe_path(root, f"videos/{clip}{extension}", source)
        if os.path.isfile(path):
            video = path
            break
    return {
        "audio": audio if os.path.isfile(audio) or video == frames else video,
        "video": frames if os.path.isdir(frames) else video,
    }


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
    list_file: str | os.PathLike | None = None,
    classes: Sequence[str] | None = None,
    validation_share: float = 0.0,
    **options: Any,
) -> "tf.data.Dataset":
    """Loads a split as batches of `({"audio", "video"}, label)`.

    Args:
        data_dir: str or path. The folder, see `files`.
        split: `"train"`, `"validation"` or `"test"`.
        modalities: Some of `"audio"`, `"video"`. Defaults to both.
        audio: `Fbank` or `STFT`. Defaults to `Fbank()`.
        image: `ImageSettings` of the frames. Defaults to `RESNET`.
        frames: int. Evenly spaced frames of each clip. Defaults to `3`.
        training: bool. Whether to shuffle, crop, flip and mask at random.
            Defaults to whether the split is `"train"`.
        seed: int. Of every random choice.
        on_error: `"raise"` or `"skip"`, for lines and for files.
        list_file: See `files`.
        classes: See `files`.
        validation_share: See `files`.
        **options: `batch_size`, `workers`, `cache_dir`, `presence`,
            `shuffle` and `augment` of `pipeline.build`.

    Returns:
        `tf.data.Dataset` of `"audio"`: float32 `(batch, 1024, 128, 1)`,
        `"video"`: float32 `(batch, frames, 224, 224, 3)`, label: int32.

    Raises:
        ValueError: See `files` and `pipeline.build`.

    Example:
    ```python
    train = kinetics_sounds.load("KS", "train", batch_size=64)
    ```
    """
    samples = files(
        data_dir,
        split,
        list_file=list_file,
        classes=classes,
        validation_share=validation_share,
        seed=seed,
        on_error=on_error,
    )
    readers = {
        "audio": pipeline.audio_reader(audio),
        "video": pipeline.video_reader(image, frames),
    }
    return pipeline.build(
        samples,
        pipeline.choose(readers, modalities),
        training=split == "train" if training is None else training,
        seed=seed,
        on_error=on_error,
        **options,
    )
