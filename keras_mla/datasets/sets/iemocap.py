"""IEMOCAP: emotions in acted conversations, as sound, picture and text."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras_mla.datasets import listing, pipeline
from keras_mla.datasets.listing import Problems, Sample
from keras_mla.datasets.readers.audio import STFT, Fbank
from keras_mla.datasets.readers.image import M3AE, ImageSettings
from keras_mla.datasets.sets import iemocap_lists, iemocap_release, loading

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "class_names",
    "files",
    "load",
]

_FOUR = ("ang", "hap", "sad", "neu")
_SIX = ("hap", "sad", "neu", "ang", "exc", "fru")
_PUBLISHED = {4: 5531, 6: 7380}
_LISTS = {
    "train": ("my_train_iemo.txt", "iemocap_train.txt"),
    "validation": ("my_dev_iemo.txt", "iemocap_valid.txt"),
    "test": ("my_test_iemo.txt", "iemocap_test.txt"),
}


def class_names(classes: int = 4) -> tuple[str, ...]:
    """Returns the names of 4 or 6 classes: label i is name i.

    The four are angry, happy, sad and neutral, with excited counted as happy.
    The six keep excited apart and add frustrated.

    Args:
        classes: int. 4 or 6. Defaults to `4`.

    Raises:
        ValueError: If `classes` is neither 4 nor 6.

    Example:
    >>> from keras_mla.datasets import iemocap
    >>> iemocap.class_names(4)
    ('ang', 'hap', 'sad', 'neu')
    """
    if classes not in (4, 6):
        raise ValueError(
            f"`classes` must be 4 or 6. Received: classes={classes}"
        )
    return _FOUR if classes == 4 else _SIX


def files(
    data_dir: str | os.PathLike,
    split: str = "train",
    *,
    classes: int = 4,
    protocol: str = "random",
    session: int = 5,
    list_file: str | os.PathLike | None = None,
    validation_share: float = 0.0,
    seed: int = 0,
    on_error: str = "raise",
) -> list[Sample]:
    """Lists the utterances of a split, from the official release.

    The release's lists are read, and for `protocol="list"` these ones, told
    apart by their lines:

    - `<utterance>.mp4 [split|sign] <text> [split|sign] <Emotion>`:
      `my_train_iemo.txt`, `my_dev_iemo.txt` and `my_test_iemo.txt` of MLA;
    - `<utterance>, <emotion>, <start>, <end> ### <text>`:
      `iemocap_train.txt`, `iemocap_valid.txt` and `iemocap_test.txt` of AMST.

    In the release, each folder `Session1` to `Session5` holds labels and
    times in `dialog/EmoEvaluation/*.txt`, texts in
    `dialog/transcriptions/*.txt`, sound in
    `sentences/wav/<dialog>/<utterance>.wav`, and pictures in
    `dialog/avi/DivX/<dialog>.avi` at the utterance's times. Pictures in
    `Image-01-FPS/<utterance>/*.jpg`, as `keras_mla.datasets.prepare` makes
    them, take precedence. An utterance of a list may be cut out already:
    `subaudio/<utterance>.wav` and `subvideo/<utterance>.mp4` stand in for the
    files of the release that are missing.

    Args:
        data_dir: str or path. The folder that holds the sessions.
        split: `"train"`, `"validation"` or `"test"`. Defaults to `"train"`.
        classes: int. 4 or 6, see `class_names`. Defaults to `4`.
        protocol: `"random"`, 60, 20 and 20 % of the utterances, with every
            speaker in every split; `"session"`, with one session, and so its
            two speakers, left out for testing; or `"list"`, the split of the
            authors' lists. Defaults to `"random"`.
        session: int. The session left out, 1 to 5. Defaults to `5`.
        list_file: str or path. With `protocol="list"`, the list of the split
            (with a `validation_share`, of training). Defaults to the first of
            the lists' names in `data_dir`.
        validation_share: float. With `protocol="session"` or `"list"`, the
            share of the utterances to train on that is `"validation"`.
            Defaults to `0.0`.
        seed: int. Seed of the random choices. Defaults to `0`.
        on_error: `"raise"`, or `"skip"` to leave out utterances without text
            and wrong lines, and warn. Defaults to `"raise"`.

    Returns:
        list of `Sample` with the inputs `"audio"`, `"image"` and `"text"`,
        and the `span` of the utterance in its dialog.

    Raises:
        ValueError: If no session is found, all files are missing, or a line
            is wrong. The message names file and line.

    Warns:
        UserWarning: If files are missing, or the number of utterances is not
            what the release gives: 5531 in four classes, 7380 in six. (The
            7433 of feature files in circulation count 53 more as happy.) The
            numbers of `protocol="list"` are not compared.

    Example:
    >>> from keras_mla.datasets import iemocap
    >>> iemocap.files(".", "test", protocol="session")
    Traceback (most recent call last):
        ...
    ValueError: Found no utterances in ...: there is no
    Session<1-5>/dialog/EmoEvaluation/*.txt.

    Reference:
        Busso et al., "IEMOCAP: Interactive emotional dyadic motion capture
        database", Language Resources and Evaluation 2008.
    """
    listing.check_split(split)
    if session not in range(1, 6):
        raise ValueError(
            f"`session` must be 1 to 5. Received: session={session}"
        )
    names = class_names(classes)
    root = listing.data_folder(data_dir)
    problems = Problems(on_error)
    if protocol == "list":
        return _listed(
            root, split, names, list_file, validation_share, seed, problems
        )
    if list_file is not None:
        raise ValueError(
            '`list_file` belongs to `protocol="list"`. '
            f"Received: protocol={protocol!r}, list_file={str(list_file)!r}"
        )
    utterances: list[Sample] = []
    for number in range(1, 6):
        utterances += iemocap_release.read_session(
            root, number, names, problems
        )
    if not utterances:
        raise ValueError(
            f"Found no utterances in {root!r}: there is no "
            "Session<1-5>/dialog/EmoEvaluation/*.txt."
        )
    kept = listing.keep_existing(utterances, "IEMOCAP", problems)
    listing.check_count(
        f"IEMOCAP, {classes} classes", len(kept), _PUBLISHED[classes]
    )
    problems.warn("IEMOCAP")
    if protocol == "random":
        shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
        return listing.partition(kept, shares, seed)[split]
    if protocol != "session":
        raise ValueError(
            '`protocol` must be "random", "session" or "list". '
            f"Received: protocol={protocol!r}"
        )

    def part(name: str) -> list[Sample]:
        left_out = f"Ses0{session}"
        return [
            s for s in kept if s.id.startswith(left_out) == (name == "test")
        ]

    return listing.carve_validation(split, part, validation_share, seed)


def _listed(
    root: str,
    split: str,
    names: Sequence[str],
    list_file: str | os.PathLike | None,
    validation_share: float,
    seed: int,
    problems: Problems,
) -> list[Sample]:
    def part(name: str) -> list[Sample]:
        path = listing.find_list(root, name, list_file, "", _LISTS[name])
        found = iemocap_lists.read_list(root, path, names, problems)
        return listing.keep_existing(found, f"IEMOCAP {name}", problems)

    if validation_share == 0:
        samples = part(split)
    else:
        samples = listing.carve_validation(split, part, validation_share, seed)
    problems.warn(f"IEMOCAP {split}")
    return samples


def load(
    data_dir: str | os.PathLike,
    split: str = "train",
    *,
    modalities: Sequence[str] | None = None,
    audio: Fbank | STFT | None = None,
    image: ImageSettings = M3AE,
    tokenizer: Callable[[Any], Any] | None = None,
    training: bool | None = None,
    seed: int = 0,
    on_error: str = "raise",
    classes: int = 4,
    protocol: str = "random",
    session: int = 5,
    list_file: str | os.PathLike | None = None,
    validation_share: float = 0.0,
    **options: Any,
) -> "tf.data.Dataset | pipeline.Batches":
    """Loads a split as batches of `({"audio", "image", "text"}, label)`.

    The picture is the utterance's middle frame. It shows both actors of the
    dialog if it comes from the dialog's video. For missing modalities, pass
    `presence=missing.missing_presence(len(samples), modalities, rate)`, with
    the `samples` of `files`.

    Args:
        data_dir: str or path. The folder, see `files`.
        split: `"train"`, `"validation"` or `"test"`. Defaults to `"train"`.
        modalities: Some of `"audio"`, `"image"` and `"text"`. Defaults to all.
        audio: `Fbank` or `STFT`. Defaults to `Fbank()`.
        image: `ImageSettings`. Defaults to `M3AE`.
        tokenizer: callable. Maps strings to arrays, such as
            `text.bert(...)`. `None` leaves strings, which only models on
            TensorFlow take.
        training: bool. Whether to shuffle, crop, flip and mask at random.
            Defaults to whether the split is `"train"`.
        seed: int. Seed of every random choice. Defaults to `0`.
        on_error: `"raise"`, `"skip"` or `"absent"`, for lines and for files,
            see `files` and `pipeline.build`. Defaults to `"raise"`.
        classes: See `files`.
        protocol: See `files`.
        session: See `files`.
        list_file: See `files`.
        validation_share: See `files`.
        **options: `batch_size`, `workers`, `cache_dir`, `presence`,
            `shuffle`, `augment`, `engine` and `use_multiprocessing` of
            `pipeline.build`.

    Returns:
        A `tf.data.Dataset`, or a `keras.utils.PyDataset` (see `engine`), of
        `"audio"`: float32 `(batch, 1024, 128, 1)`, `"image"`: float32
        `(batch, 256, 256, 3)`, `"text"`: what the tokenizer gives, or strings
        `(batch,)`, label: int32.

    Raises:
        ValueError: See `files` and `pipeline.build`.

    Example:
    >>> from keras_mla.datasets import iemocap
    >>> iemocap.load("IEMOCAP_full_release", protocol="session", session=6)
    Traceback (most recent call last):
        ...
    ValueError: `session` must be 1 to 5. Received: session=6
    """
    samples = files(
        data_dir,
        split,
        classes=classes,
        protocol=protocol,
        session=session,
        list_file=list_file,
        validation_share=validation_share,
        seed=seed,
        on_error=on_error,
    )
    readers = {
        "audio": pipeline.audio_reader(audio),
        "image": pipeline.video_reader(image, None, "image"),
        "text": pipeline.text_reader(tokenizer),
    }
    return loading.load_split(
        samples,
        readers,
        split,
        modalities,
        training,
        seed=seed,
        on_error=on_error,
        **options,
    )
