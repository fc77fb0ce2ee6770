"""Utterances of IEMOCAP from the files of its official release."""

import glob
import os
import re
from collections.abc import Iterator, Sequence

from keras_mla.datasets import listing
from keras_mla.datasets.listing import Problems, Sample
from keras_mla.datasets.sets import audio_video

_TURN = re.compile(
    r"\[([\d.]+) - ([\d.]+)\]\s+(Ses0([1-5])[FM]_\w+)\s+([a-z]{3})\s+\["
)
_SPOKEN = re.compile(r"(Ses0[1-5][FM]_\w+) \[[\d.]+-[\d.]+\]:(.*)")


def read_session(
    root: str, number: int, names: Sequence[str], problems: Problems
) -> list[Sample]:
    """Returns the utterances of a session whose emotion is in `names`.

    Args:
        root: str. The folder that holds the sessions.
        number: int. The session, 1 to 5.
        names: The names of the classes.
        problems: `Problems`. It decides what happens to a wrong line.
    """
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
    frames = listing.safe_path(root, f"{audio_video.FRAMES}/{key}", source)
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
