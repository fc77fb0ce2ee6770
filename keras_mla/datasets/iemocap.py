"""IEMOCAP: emotions in acted conversations, as sound, picture and text."""

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from keras_mla.datasets import listing, pipeline
from keras_mla.datasets.audio import STFT, Fbank
from keras_mla.datasets.image import M3AE, ImageSettings
from keras_mla.datasets.listing import Sample

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
_TURN = re.compile(
    r"\[([\d.]+) - ([\d.]+)\]\s+(Ses0([1-5])[FM]_\w+)\s+([a-z]{3})\s+\["
)
_SPOKEN = re.compile(r"(Ses0[1-5][FM]_\w+) \[[\d.]+-[\d.]+\]:(.*)")


def class_names(classes: int = 4) -> tuple[str, ...]:
    """Returns the names of 4 or 6 classes: label i is the i-th.

    Four are angry, happy, sad and neutral, with excited counted as happy; six
    keep excited apart and add frustrated.

    Raises:
        ValueError: If `classes` is neither 4 nor 6.
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
    validation_share: float = 0.0,
    seed: int = 0,
    on_error: str = "raise",
) -> list[Sample]:
    """Lists the utterances of a split, from the official release.

    Read are, in `Session1` to `Session5`: labels and times from
    `dialog/EmoEvaluation/*.txt`, texts from `dialog/transcriptions/*.txt`,
    sound from `sentences/wav/<dialog>/<utterance>.wav`, pictures from
    `dialog/avi/DivX/<dialog>.avi` at the utterance's times, or from
    `Image-01-FPS/<utterance>/*.jpg`, as `keras_mla.datasets.prepare` makes
    them.

    Args:
        data_dir: str or path. The folder that holds the sessions.
        split: `"train"`, `"validation"` or `"test"`.
        classes: int. 4 or 6, see `class_names`. Defaults to `4`.
        protocol: `"random"`: 60, 20 and 20 % of the utterances, in which
            every speaker is in every split; or `"session"`: one session, and
            so its two speakers, is left out for testing.
        session: int. The session left out, 1 to 5. Defaults to `5`.
        validation_share: float. With `protocol="session"`, the share of the
            other sessions' utterances that is `"validation"`.
        seed: int. Of the random choices. Defaults to `0`.
        on_error: `"raise"`, or `"skip"` to leave out utterances without text
            and wrong lines, and warn.

    Returns:
        list of `Sample` with the inputs `"audio"`, `"image"` and `"text"`,
        and the `span` of the utterance in its dialog.

    Raises:
        ValueError: If no session is found, all files are missing, or a line
            is wrong: its message names file and line.

    Warns:
        UserWarning: If files are missing, or the number of utterances is not
            what the release gives: 5531 in four classes, 7380 in six. (The
            7433 of feature files in circulation count 53 more as happy.)

    Example:
    ```python
    test = iemocap.files("IEMOCAP_full_release", "test", protocol="session")
    ```

    Reference:
        Busso et al., "IEMOCAP: Interactive emotional dyadic motion capture
        database", Language Resources and Evaluation 2008.
    """
    listing.check_split(split, ("train", "validation", "test"))
    if session not in range(1, 6):
        raise ValueError(
            f"`session` must be 1 to 5. Received: session={session}"
        )
    names = class_names(classes)
    root = listing.data_folder(data_dir)
    problems = listing.Problems(on_error)
    utterances: list[Sample] = []
    for number in range(1, 6):
        utterances += _session(root, number, names, problems)
    if not utterances:
        raise ValueError(
            f"Found no utterances in {root!r}: there is no "
            "Session<1-5>/dialog/EmoEvaluation/*.txt."
        )
    kept = listing.keep_existing(utterances, "IEMOCAP")
    listing.check_count(
        f"IEMOCAP, {classes} classes", len(kept), _PUBLISHED[classes]
    )
    problems.warn("IEMOCAP")
    if protocol == "random":
        shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
        return listing.partition(kept, shares, seed)[split]
    if protocol != "session":
        raise ValueError(
            '`protocol` must be "random" or "session". '
            f"Received: protocol={protocol!r}"
        )

    def part(name: str) -> list[Sample]:
        left_out = f"Ses0{session}"
        return [
            s for s in kept if s.id.startswith(left_out) == (name == "test")
        ]

    return listing.carve_validation(split, part, validation_share, seed)


def _session(
    root: str, number: int, names: Sequence[str], problems: listing.Problems
) -> list[Sample]:
    dialog = os.path.join(root, f"Session{number}", "dialog")
    spoken: dict[str, str] = {}
    for _, line in _lines(dialog, "transcriptions"):
        match = _SPOKEN.match(line)
        if match:
            spoken.setdefault(match[1], match[2].strip())
    # Only turns begin so; the raters' own lines follow them.
    turns = (
        (source, line)
        for source, line in _lines(dialog, "EmoEvaluation")
        if re.match(r"\[[\d.]", line)
    )
    return listing.make_samples(
        turns,
        lambda source, line: _turn(root, number, names, spoken, source, line),
        problems,
    )


def _lines(dialog: str, folder: str) -> Iterator[tuple[str, str]]:
    # Copied archives hold "._" twins of every file.
    pattern = os.path.join(glob.escape(dialog), folder, "[!.]*.txt")
    for path in sorted(glob.glob(pattern)):
        yield from listing.read_lines(path)


def _turn(
    root: str,
    number: int,
    names: Sequence[str],
    spoken: dict[str, str],
    source: str,
    line: str,
) -> Sample | None:
    match = _TURN.match(line)
    if match is None or int(match[4]) != number:
        raise ValueError(
            f"{source}: expected '[<start> - <end>]<tab><utterance of session "
            f"{number}><tab><emotion><tab>[<v>, <a>, <d>]'. "
            f"Received: line={line[:200]!r}"
        )
    key, emotion = match[3], match[5]
    if emotion == "exc" and "exc" not in names:
        emotion = "hap"
    if emotion not in names:
        return None
    try:
        span = (float(match[1]), float(match[2]))
    except ValueError:
        span = (0.0, 0.0)
    if not span[0] < span[1]:
        raise ValueError(
            f"{source}: the times must be numbers, the end after the start. "
            f"Received: start={match[1]}, end={match[2]}"
        )
    if not spoken.get(key):
        raise ValueError(
            f"{source}: the text of {key!r} is empty or not among the "
            "transcriptions."
        )
    name = key.rsplit("_", 1)[0]
    base = f"Session{number}"
    frames = listing.safe_path(root, f"Image-01-FPS/{key}", source)
    video = listing.safe_path(
        root, f"{base}/dialog/avi/DivX/{name}.avi", source
    )
    wav = listing.safe_path(
        root, f"{base}/sentences/wav/{name}/{key}.wav", source
    )
    inputs = {
        "audio": wav,
        "image": frames if os.path.isdir(frames) else video,
        "text": spoken[key],
    }
    return Sample(key, names.index(emotion), inputs, source, span)


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
    validation_share: float = 0.0,
    **options: Any,
) -> "tf.data.Dataset":
    """Loads a split as batches of `({"audio", "image", "text"}, label)`.

    The picture is the utterance's middle frame, which shows both actors of
    the dialog where it comes from the dialog's video.

    Args:
        data_dir: str or path. The folder, see `files`.
        split: `"train"`, `"validation"` or `"test"`.
        modalities: Some of `"audio"`, `"image"`, `"text"`. Defaults to all.
        audio: `Fbank` or `STFT`. Defaults to `Fbank()`.
        image: `ImageSettings`. Defaults to `M3AE`.
        tokenizer: Maps strings to arrays, such as `text.bert(...)`. `None`
            leaves strings, which only models on TensorFlow take.
        training: bool. Whether to shuffle, crop, flip and mask at random.
            Defaults to whether the split is `"train"`.
        seed: int. Of every random choice.
        on_error: `"raise"` or `"skip"`, for lines and for files.
        classes: See `files`.
        protocol: See `files`.
        session: See `files`.
        validation_share: See `files`.
        **options: `batch_size`, `workers`, `cache_dir`, `presence`,
            `shuffle` and `augment` of `pipeline.build`.

    Returns:
        `tf.data.Dataset` of `"audio"`: float32 `(batch, 1024, 128, 1)`,
        `"image"`: float32 `(batch, 256, 256, 3)`, `"text"`: what the
        tokenizer gives, or strings `(batch,)`, label: int32.

    Raises:
        ValueError: See `files` and `pipeline.build`.

    Example:
    ```python
    names = ("audio", "image", "text")
    samples = iemocap.files("IEMOCAP_full_release", "train")
    presence = missing.missing_presence(len(samples), names, rate=0.3)
    train = iemocap.load(
        "IEMOCAP_full_release", "train", modalities=names, presence=presence
    )
    ```
    """
    samples = files(
        data_dir,
        split,
        classes=classes,
        protocol=protocol,
        session=session,
        validation_share=validation_share,
        seed=seed,
        on_error=on_error,
    )
    readers = {
        "audio": pipeline.audio_reader(audio),
        "image": pipeline.video_reader(image, None, "image"),
        "text": pipeline.text_reader(tokenizer),
    }
    return pipeline.build(
        samples,
        pipeline.choose(readers, modalities),
        training=split == "train" if training is None else training,
        seed=seed,
        on_error=on_error,
        **options,
    )
