"""Utterances of IEMOCAP from the files of its official release."""

import contextlib
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


def read_times(root: str) -> dict[str, tuple[float, float]]:
    """Returns start and end of the utterances of all sessions, in seconds."""
    times = {}
    for number in range(1, 6):
        dialog = os.path.join(root, f"Session{number}", "dialog")
        for _, line in _lines(dialog, "EmoEvaluation"):
            match = _TURN.match(line)
            if match is not None:
                with contextlib.suppress(ValueError):
                    times[match[3]] = (float(match[1]), float(match[2]))
    return times


def paths_of(root: str, key: str, source: str) -> dict[str, str]:
    """Returns where the release has an utterance's sound, video and frames.

    Args:
        root: str. The folder that holds the sessions.
        key: str. The utterance, such as `"Ses01F_impro01_F000"`.
        source: str. List file and line, for the error message.
    """
    name, base = key.rsplit("_", 1)[0], f"Session{int(key[3:5])}"
    inside = {
        "frames": f"{audio_video.FRAMES}/{key}",
        "video": f"{base}/dialog/avi/DivX/{name}.avi",
        "sound": f"{base}/sentences/wav/{name}/{key}.wav",
    }
    return {
        what: listing.safe_path(root, path, source)
        for what, path in inside.items()
    }


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
    paths = paths_of(root, key, source)
    frames = paths["frames"]
    inputs = {
        "audio": paths["sound"],
        "image": frames if os.path.isdir(frames) else paths["video"],
        "text": spoken[key],
    }
    return Sample(key, names.index(emotion), inputs, source, span)
