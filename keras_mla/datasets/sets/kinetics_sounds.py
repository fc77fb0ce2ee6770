"""Kinetics-Sounds: actions of Kinetics that can be seen and heard."""

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from keras_mla.datasets import listing, pipeline
from keras_mla.datasets.listing import Sample
from keras_mla.datasets.readers.audio import STFT, Fbank
from keras_mla.datasets.readers.image import RESNET, ImageSettings
from keras_mla.datasets.sets import audio_video, kinetics_lists, loading
from keras_mla.datasets.sets.kinetics_lists import Entry

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "class_names",
    "files",
    "load",
]

_CLASSES = 31
_PUBLISHED = {"train": 14799, "validation": 1320, "test": 2597}
_NAMES = ("my_{}.txt", "my_{}_ks.txt", "KS_train_val.json")
_VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".flv")


def class_names(
    data_dir: str | os.PathLike, list_file: str | os.PathLike | None = None
) -> tuple[str, ...]:
    """Returns the classes' names, sorted: label i is name i.

    The names are read from the training list: the 31 classes are a selection
    from Kinetics-400 whose spelling differs between copies. If the list gives
    numbers, the names are the numbers. From the owners' list of all 400
    classes, only the names of the 31 are taken.

    Args:
        data_dir: str or path. The folder, see `files`.
        list_file: str or path. The training list. Defaults to the one that
            `files` finds.

    Example:
    >>> from keras_mla.datasets import kinetics_sounds
    >>> with open("train.csv", "w") as file:
    ...     print("-x_000010_000020,10,surfing", file=file)
    >>> kinetics_sounds.class_names(".")
    ('surfing',)
    """
    root = listing.data_folder(data_dir)
    return kinetics_lists.class_names(_find(root, list_file))


def _find(root: str, list_file: str | os.PathLike | None) -> str:
    names = [name.format("train") for name in _NAMES]
    return listing.find_list(root, "train", list_file, "csv txt", names)


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
    `Image-01-FPS/<clip>/*.jpg`, as `keras_mla.datasets.prepare` makes them.
    `videos/<clip>.mp4` (or mkv, webm, avi, flv) can replace either. A clip is
    `<youtube id>_<start>_<end>`, with six digits each.

    These lists are read, and told apart by what they hold:

    - `<clip>,10,<class>`: `my_train.txt` of OGM-GE, with a class by name or
      number. A clip may be `<youtube id>_<start>`, as in its `my_test.txt`:
      its files have that name, or the full one that ends 10 s later;
    - `<clip>.mp4 <class>`, as MLA reads it;
    - `KS_train_val.json` of BML, which has a validation split of its own;
    - `label,youtube_id,time_start,time_end,...`: the owners' csv of
      Kinetics-400. Rows of other classes are passed over.

    A number is an index into `classes`. The numbers of OGM-GE are indices
    into the sorted names. Blanks and underscores in names are alike.

    Args:
        data_dir: str or path. The folder.
        split: `"train"`, `"validation"` or `"test"`. Defaults to `"train"`.
        list_file: str or path. The list of the split (for validation, the
            list of training). Defaults to `<split>.csv`, `<split>.txt`,
            `my_<split>.txt`, `my_<split>_ks.txt` or `KS_train_val.json` in
            `data_dir`.
        classes: The classes' names. Defaults to `class_names(data_dir)`.
        validation_share: float. Share of the training list that is
            `"validation"` instead of `"train"`. Defaults to `0.0`.
        seed: int. Seed of the choice of that share. Defaults to `0`.
        on_error: `"raise"`; `"skip"` to leave out wrong lines, and
            warn; or `"absent"`: a modality whose file is missing
            is absent. Defaults to `"raise"`.

    Returns:
        list of `Sample` with the inputs `"audio"` and `"video"`.

    Raises:
        ValueError: If the folder, the list or all its files are missing, or a
            line is wrong. The message names file and line.

    Warns:
        UserWarning: If files are missing, or the number of clips or classes
            is not the published one (14799 and 2597, 1320 for validation
            by `KS_train_val.json`; 31).

    Example:
    >>> import pathlib
    >>> from keras_mla.datasets import kinetics_sounds
    >>> video = pathlib.Path("videos/-x_000010_000020.mp4")
    >>> video.parent.mkdir()
    >>> video.touch()
    >>> pathlib.Path("mine.csv").write_text("-x_000010_000020,10,surfing")
    27
    >>> names = [*(f"class {i}" for i in range(30)), "surfing"]
    >>> settings = {"list_file": "mine.csv", "classes": names}
    >>> [sample] = kinetics_sounds.files(".", **settings)
    >>> sample.id, sample.label
    ('-x_000010_000020', 30)

    Reference:
        Arandjelovic and Zisserman, "Look, Listen and Learn", ICCV 2017.
    """
    listing.check_split(split)
    root = listing.data_folder(data_dir)
    problems = listing.Problems(on_error)
    if classes is None:
        # A list file given for the test split is no list of the classes.
        own = None if split == "test" else list_file
        try:
            classes = class_names(root, own)
        except ValueError as error:
            given = None if list_file is None else _find(root, list_file)
            if given is not None and own is None:
                classes = kinetics_lists.numbers(given, _CLASSES)
            if classes is None and given is not None and own is None:
                raise ValueError(
                    "The labels of a test list are numbered by the training "
                    "list, which was not found. Pass `classes`, such as "
                    "`classes=class_names(data_dir, training_list)`. "
                    f"{error}"
                ) from error
            if classes is None:
                raise
    listing.check_count("Kinetics-Sounds classes", len(classes), _CLASSES)
    plain = [name.replace("_", " ") for name in classes]
    labels = {name: i for i, name in enumerate(plain)}

    def make(source: str, entry: Entry) -> Sample | None:
        clip, name, chosen = kinetics_lists.parse(entry, source)
        label = labels.get(name.replace("_", " "))
        if label is None and name.isdecimal() and int(name) < len(classes):
            label = int(name)
        if label is None and chosen:
            return None
        if label is None:
            raise ValueError(
                f"{source}: the class is not one of the {len(labels)} of the "
                f"training list. Received: class={name!r}"
            )
        return Sample(clip, label, _inputs(root, clip, source), source)

    def read(path: str, part: str) -> Iterable[tuple[str, Entry]]:
        return kinetics_lists.read(path, part)

    samples = audio_video.list_clips(
        "Kinetics-Sounds",
        root,
        split,
        make,
        problems,
        read=read,
        list_file=list_file,
        names=_NAMES,
        published=_PUBLISHED,
        validation_share=validation_share,
        seed=seed,
        own_validation=split == "validation"
        and _find(root, list_file).endswith(".json"),
    )
    problems.warn(f"Kinetics-Sounds {split}")
    return samples


def _inputs(root: str, clip: str, source: str) -> dict[str, str]:
    names = kinetics_lists.file_names(clip)

    def find(folder: str, extensions: Sequence[str]) -> str | None:
        for name in names:
            for extension in extensions:
                inside = f"{folder}/{name}{extension}"
                path = listing.safe_path(root, inside, source)
                if os.path.exists(path):
                    return path
        return None

    sound = find("audio", [".wav"])
    frames = find(audio_video.FRAMES, [""])
    video = find("videos", _VIDEOS)
    # Without a video the sound and the frames are what is missing.
    audio = listing.safe_path(root, f"audio/{names[-1]}.wav", source)
    folder = f"{audio_video.FRAMES}/{names[-1]}"
    missing = listing.safe_path(root, folder, source)
    return {
        "audio": sound or video or audio,
        "video": frames or video or missing,
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
        list_file: See `files`.
        classes: See `files`.
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
    >>> from keras_mla.datasets import kinetics_sounds
    >>> video = pathlib.Path("videos/-x_000010_000020.mp4")
    >>> video.parent.mkdir()
    >>> video.touch()
    >>> pathlib.Path("mine.csv").write_text("-x_000010_000020,10,surfing")
    27
    >>> names = [*(f"class {i}" for i in range(30)), "surfing"]
    >>> settings = {"list_file": "mine.csv", "classes": names}
    >>> data = kinetics_sounds.load(".", frames=3, **settings)
    >>> {name: tuple(x.shape) for name, x in data.element_spec[0].items()}
    {'audio': (None, 1024, 128, 1), 'video': (None, 3, 224, 224, 3)}
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
