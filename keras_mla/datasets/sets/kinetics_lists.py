"""The lists of Kinetics-Sounds: OGM-GE's, MLA's, BML's and the owners'."""

import csv
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from keras_mla.datasets import listing

SOUNDS = (
    "blowing nose",
    "blowing out candles",
    "bowling",
    "chopping wood",
    "dribbling basketball",
    "laughing",
    "mowing lawn",
    "playing accordion",
    "playing bagpipes",
    "playing bass guitar",
    "playing clarinet",
    "playing drums",
    "playing guitar",
    "playing harmonica",
    "playing keyboard",
    "playing organ",
    "playing piano",
    "playing saxophone",
    "playing trombone",
    "playing trumpet",
    "playing violin",
    "playing xylophone",
    "ripping paper",
    "shoveling snow",
    "shuffling cards",
    "singing",
    "stomping grapes",
    "tap dancing",
    "tapping guitar",
    "tapping pen",
    "tickling",
)
"""The 31 classes, spelled as in Kinetics-400."""

_CLIP = re.compile(r"[\w-]+_\d+(_\d+)?")
# An identifier of YouTube has 11 characters, which may be "_" and digits.
_START = re.compile(r"([\w-]{11})_(\d+)")
_VIDEO = re.compile(r"([\w-]+)\.(?:mp4|mkv|webm|avi|flv)\s+(\S.*)")
_OWNERS = ["label", "youtube_id", "time_start", "time_end"]
_SECONDS = 10
_SUBSETS = {"train": "training", "test": "testing"}
_MAX_BYTES = 100_000_000
_MAX_NUMBER = 100_000

Entry = Any


class Row(NamedTuple):
    """A clip, its class, and whether the list has classes of no interest."""

    clip: str
    name: str
    chosen: bool


def read(path: str, split: str | None) -> Iterator[tuple[str, Entry]]:
    """Yields `(source, entry)` of a list, to be parsed by `parse`.

    Args:
        path: str. The list.
        split: str. The split to read from a list of several. Defaults to all.
    """
    if path.endswith(".json"):
        yield from _read_json(path, split)
        return
    owners = False
    for index, (source, line) in enumerate(listing.read_lines(path)):
        fields = line.replace('"', "").split(",")
        if index == 0 and "youtube_id" in fields:
            if fields[: len(_OWNERS)] != _OWNERS:
                raise ValueError(
                    f"{source}: expected the columns {','.join(_OWNERS)}. The "
                    "owners' list of the test split has no labels. "
                    f"Received: line={line[:200]!r}"
                )
            owners = True
        else:
            yield source, (line, owners)


def _read_json(path: str, split: str | None) -> Iterator[tuple[str, Entry]]:
    clips = load_json(path)["database"]
    for clip, record in clips.items():
        record = record if isinstance(record, dict) else {}
        subset = _SUBSETS.get(split or "", split)
        if split is None or record.get("subset") == subset:
            name = record.get("label")
            yield f"{path}, {clip!r}", Row(clip, str(name or ""), False)


def load_json(path: str) -> dict[str, Any]:
    """Returns the content of `KS_train_val.json`.

    Raises:
        ValueError: If it is not of that form.
    """
    try:
        content = json.loads(listing.read_text(path, _MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Cannot read the list {path!r}: {error}") from error
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("labels"), list)
        or not isinstance(content.get("database"), dict)
        or not all(isinstance(name, str) for name in content["labels"])
    ):
        raise ValueError(
            f"{path!r}: expected a JSON object with the list 'labels' and the "
            "object 'database', of clips."
        )
    return content


def parse(entry: Entry, source: str) -> Row:
    """Returns the clip and the class of an entry.

    Raises:
        ValueError: If the entry is of none of the forms.
    """
    row = entry if isinstance(entry, Row) else _parse_line(*entry)
    if row is None or not row.name or not _CLIP.fullmatch(row.clip):
        line = entry if isinstance(entry, Row) else entry[0][:200]
        raise ValueError(
            f"{source}: expected '<youtube id>_<start>_<end>,<seconds>,"
            "<class>', '<clip>.mp4 <class>' or '<class>,<youtube id>,<start>,"
            f"<end>' below a header. Received: line={line!r}"
        )
    return row


def _parse_line(line: str, owners: bool) -> Row | None:
    if owners:
        try:
            name, clip, start, end = next(csv.reader([line]))[:4]
            clip = f"{clip}_{int(start):06d}_{int(end):06d}"
        except (csv.Error, ValueError, StopIteration):
            return None
        return Row(clip, name.strip(), True)
    video = _VIDEO.fullmatch(line.strip())
    if video is not None:
        return Row(video[1], video[2].strip(), False)
    fields = [field.strip() for field in line.split(",", 2)]
    return Row(fields[0], fields[2], False) if len(fields) == 3 else None


def class_names(path: str) -> tuple[str, ...]:
    """Returns the classes of a list, sorted; wrong entries are passed over."""
    if path.endswith(".json"):
        return tuple(load_json(path)["labels"])
    labels, chosen = set(), False
    for source, entry in read(path, None):
        try:
            _, name, chosen = parse(entry, source)
        except ValueError:
            continue  # `files` reports it.
        labels.add(name)
    if chosen:
        labels = labels.intersection(SOUNDS) or labels
    return numbers_of(labels) or tuple(sorted(labels))


def numbers(path: str, least: int) -> tuple[str, ...] | None:
    """Returns the numbers of classes, if a list gives no names."""
    found = class_names(path)
    if not numbers_of(set(found)):
        return None
    return tuple(str(i) for i in range(max(least, len(found))))


def numbers_of(labels: set[str]) -> tuple[str, ...] | None:
    """Returns `"0"`, `"1"`, ... if all labels are numbers, else `None`."""
    if not labels or not all(label.isdecimal() for label in labels):
        return None
    most = max(map(int, labels))
    return tuple(map(str, range(most + 1))) if most < _MAX_NUMBER else None


def file_names(clip: str) -> list[str]:
    """Returns the names that the files of a clip may have."""
    match = _START.fullmatch(clip)
    if match is None:
        return [clip]
    start = int(match[2])
    return [clip, f"{match[1]}_{start:06d}_{start + _SECONDS:06d}"]
