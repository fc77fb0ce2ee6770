"""The lists of IEMOCAP's utterances that papers' authors publish."""

import os
import re
from collections.abc import Sequence

from keras_mla.datasets import listing
from keras_mla.datasets.listing import Problems, Sample
from keras_mla.datasets.sets import iemocap_release

_SPLIT = " [split|sign] "
_KEY = re.compile(r"Ses0[1-5][FM]_\w+_[FM]\w*")
_WORDS = {
    "angry": "ang",
    "anger": "ang",
    "happy": "hap",
    "happiness": "hap",
    "sad": "sad",
    "sadness": "sad",
    "neutral": "neu",
    "excited": "exc",
    "frustrated": "fru",
    "frustration": "fru",
}


def read_list(
    root: str, path: str, names: Sequence[str], problems: Problems
) -> list[Sample]:
    """Returns the utterances of a list whose emotion is in `names`.

    Args:
        root: str. The data folder.
        path: str. The list.
        names: The names of the classes.
        problems: `Problems`. It decides what happens to a wrong line.
    """
    times = iemocap_release.read_times(root)

    def make(source: str, line: str) -> Sample | None:
        key, text, emotion, span = _parse(line, source)
        if emotion == "exc" and "exc" not in names:
            emotion = "hap"
        if emotion not in names:
            return None
        span = times.get(key, span)
        inputs = {"text": " ".join(text.split())}
        if not inputs["text"]:
            if not problems.absent:
                raise ValueError(f"{source}: the text of {key!r} is empty.")
            del inputs["text"]
        paths = iemocap_release.paths_of(root, key, source)
        cut = {
            what: listing.safe_path(root, f"sub{what}/{key}{extension}", source)
            for what, extension in (("audio", ".wav"), ("video", ".mp4"))
        }
        sound, video = paths["sound"], paths["video"]
        if not os.path.exists(sound) and os.path.exists(cut["audio"]):
            sound = cut["audio"]
        if os.path.isdir(paths["frames"]):
            video = paths["frames"]
        elif os.path.exists(cut["video"]) and not (
            os.path.exists(video) and span is not None
        ):
            video, span = cut["video"], None
        elif span is None and problems.absent:
            video = ""
        elif span is None:
            raise ValueError(
                f"{source}: there is neither {paths['frames']!r} nor "
                f"{cut['video']!r}, and the times of {key!r} in its dialog "
                "are not in Session<1-5>/dialog/EmoEvaluation/*.txt."
            )
        inputs = {"audio": sound, "image": video, **inputs}
        if not video:
            del inputs["image"]
        return Sample(key, names.index(emotion), inputs, source, span)

    return listing.make_samples(listing.read_lines(path), make, problems)


def _parse(
    line: str, source: str
) -> tuple[str, str, str, tuple[float, float] | None]:
    """Returns the utterance, its text, its emotion and its times, if listed."""
    span = None
    head, text, word = "", "", ""
    if _SPLIT in line:
        head, _, rest = line.strip().partition(_SPLIT)
        text, _, word = rest.rpartition(_SPLIT)
    else:
        fields, _, text = line.strip().partition("###")
        listed = [field.strip() for field in fields.split(",")]
        if len(listed) == 4:
            head, word = listed[:2]
            try:
                span = (float(listed[2]), float(listed[3]))
            except ValueError:
                head = ""
    key = os.path.splitext(os.path.basename(head.strip()))[0]
    word = word.strip().lower()
    emotion = _WORDS.get(word, word)
    if not _KEY.fullmatch(key) or not re.fullmatch(r"[a-z]{3}", emotion):
        raise ValueError(
            f"{source}: expected '<utterance>.mp4{_SPLIT}<text>{_SPLIT}"
            "<emotion>' or '<utterance>, <emotion>, <start>, <end> ### "
            f"<text>'. Received: line={line[:200]!r}"
        )
    return key, text, emotion, span
