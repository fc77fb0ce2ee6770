"""Reading list files, keeping paths inside the data folder, and splitting."""

import csv
import dataclasses
import functools
import json
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

__all__ = [
    "Problems",
    "Sample",
    "carve_validation",
    "check_count",
    "check_split",
    "data_folder",
    "find_list",
    "keep_existing",
    "make_samples",
    "partition",
    "read_json_lines",
    "read_lines",
    "read_rows",
    "read_text",
    "safe_path",
]

MAX_LINE = 1_000_000


@dataclasses.dataclass(frozen=True)
class Sample:
    """One sample of a data set, before anything is decoded.

    Attributes:
        id: The name that the data set gives the sample.
        label: Index into the data set's `class_names`.
        inputs: For each modality the absolute path of its file or folder of
            frames; for `"text"` the text itself.
        source: The list file and line (or the file) that names the sample.
        span: Start and end in seconds, where the sample is a part of its
            video; `None` where it is the whole file.
    """

    id: str
    label: int
    inputs: dict[str, str]
    source: str
    span: tuple[float, float] | None = None


class Problems:
    """Raises each problem, or counts it where the user chose to skip.

    Args:
        on_error: `"raise"` or `"skip"`.

    Raises:
        ValueError: If `on_error` is neither.
    """

    def __init__(self, on_error: str) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(
                '`on_error` must be "raise" or "skip". '
                f"Received: on_error={on_error!r}"
            )
        self.skip = on_error == "skip"
        self.entries: list[str] = []

    def add(self, message: str) -> None:
        """Raises `ValueError(message)`, or keeps the message and goes on."""
        if not self.skip:
            raise ValueError(message)
        self.entries.append(message)

    def warn(self, what: str) -> None:
        """Warns once of everything that was skipped."""
        if self.entries:
            warnings.warn(
                f"{what}: skipped {len(self.entries)} entries. The first: "
                f"{self.entries[0]}",
                stacklevel=3,
            )


@functools.lru_cache(maxsize=4096)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)


def safe_path(root: str | os.PathLike, name: str, source: str = "") -> str:
    """Joins a name from a list file to the data folder, and never leaves it.

    Args:
        root: str or path. The data folder.
        name: str. A relative path, as a list file gives it.
        source: str. List file and line, for the error message.

    Returns:
        The absolute path, symbolic links resolved. The file need not exist.

    Raises:
        ValueError: If the path is empty or absolute, climbs with `..`, holds
            a NUL character, or is a symbolic link that leads out of `root`.

    Example:
    >>> from keras_mla.datasets import listing
    >>> listing.safe_path("/data", "images/1.jpg")
    '/data/images/1.jpg'
    """
    where = f"{source}: " if source else ""
    windows = pathlib.PureWindowsPath(name)
    if (
        not name.strip()
        or "\0" in name
        or os.path.isabs(name)
        or windows.drive
        or windows.root
        or ".." in re.split(r"[\\/]", name)
    ):
        raise ValueError(
            f"{where}a path must be relative and stay inside the data folder "
            f"{os.fspath(root)!r}. Received: path={name!r}"
        )
    base = _real_folder(os.fspath(root))
    joined = os.path.normpath(os.path.join(base, name))
    path = os.path.join(
        _real_folder(os.path.dirname(joined)), os.path.basename(joined)
    )
    if os.path.islink(path):
        path = os.path.realpath(path)
    if path != base and not path.startswith(base.rstrip(os.sep) + os.sep):
        raise ValueError(
            f"{where}the path is a symbolic link that leads out of the data "
            f"folder {os.fspath(root)!r}, to {path!r}. "
            f"Received: path={name!r}"
        )
    return path


def data_folder(data_dir: str | os.PathLike) -> str:
    """Returns `data_dir` as an absolute path, or says that there is none."""
    path = os.path.realpath(os.path.expanduser(os.fspath(data_dir)))
    if not os.path.isdir(path):
        raise ValueError(
            "There is no folder at `data_dir`. "
            f"Received: data_dir={os.fspath(data_dir)!r}"
        )
    return path


def find_list(
    root: str, split: str, list_file: str | os.PathLike | None, kinds: str
) -> str:
    """Returns the list file of a split: the one given, or `<split>.<kind>`.

    Args:
        root: str. The data folder.
        split: str. Name of the split.
        list_file: str, path or `None`. A list file anywhere on disk, or a
            name inside `root`.
        kinds: str. Extensions to try, separated by spaces.

    Returns:
        The path of an existing file.

    Raises:
        ValueError: If there is none.
    """
    if list_file is not None:
        given = os.path.expanduser(os.fspath(list_file))
        for path in (given, os.path.join(root, given)):
            if os.path.isfile(path):
                return path
        raise ValueError(
            f"There is no list file at `list_file`, neither as it stands nor "
            f"in {root!r}. Received: list_file={given!r}"
        )
    names = [f"{split}.{kind}" for kind in kinds.split()]
    for name in names:
        path = os.path.join(root, name)
        if os.path.isfile(path):
            return path
    raise ValueError(
        f"Found no list of the split {split!r} in {root!r}: none of "
        f"{', '.join(names)}. Put one there, or give its path as `list_file`."
    )


def read_lines(path: str) -> Iterator[tuple[str, str]]:
    """Yields `(source, line)` for each line of a text file that isn't blank.

    `source` is `"<file>, line <n>"`. Text is read as UTF-8; bytes that are
    not UTF-8 become U+FFFD.

    Raises:
        ValueError: If a line has more than a million characters.
    """
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            source = f"{path}, line {number}"
            if len(line) > MAX_LINE:
                raise ValueError(
                    f"{source}: longer than {MAX_LINE:,} characters. Is this "
                    "a list file?"
                )
            if line.strip():
                yield source, line.rstrip("\r\n")


def read_rows(path: str) -> Iterator[tuple[str, list[str]]]:
    """Yields `(source, fields)` for each row of a comma-separated file.

    Quoted fields may hold commas and line breaks; `source` names the row's
    last line.
    """
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as f:
        reader = csv.reader(line.replace("\0", "") for line in f)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise ValueError(
                    f"{path}, line {reader.line_num}: {error}"
                ) from error
            if row:
                yield f"{path}, line {reader.line_num}", row


def read_json_lines(
    path: str, keys: Sequence[str], problems: Problems
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields `(source, record)` for each line of a jsonl file.

    Args:
        path: str. A file with one JSON object a line.
        keys: The keys that each object must have; their values are turned
            into strings.
        problems: `Problems`. What to do with a line in the wrong form.
    """
    for source, line in read_lines(path):
        try:
            record: Any = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not all(
            isinstance(record.get(key), str | int) for key in keys
        ):
            problems.add(
                f"{source}: expected a JSON object with the keys "
                f"{', '.join(keys)}. Received: line={line[:200]!r}"
            )
            continue
        yield source, {key: str(record[key]) for key in keys}


def read_text(path: str, max_bytes: int = 1_000_000) -> str:
    """Returns a text file's content, stripped, as UTF-8 (bad bytes U+FFFD).

    Raises:
        ValueError: If the file cannot be read or is longer than `max_bytes`.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ValueError(f"Cannot read the text {path!r}: {error}") from error
    if len(data) > max_bytes:
        raise ValueError(
            f"The text {path!r} is longer than {max_bytes:,} bytes."
        )
    return data.decode("utf-8", errors="replace").strip()


def make_samples(
    entries: Iterable[tuple[str, Any]],
    make: Callable[[str, Any], Sample | None],
    problems: Problems,
) -> list[Sample]:
    """Makes a sample of each entry of a list.

    Args:
        entries: Pairs of the source and the entry, such as `read_lines` gives.
        make: Called with both; returns a sample, or `None` to pass over the
            entry, or raises `ValueError` if the entry is wrong.
        problems: `Problems`. What to do with a wrong one.

    Returns:
        list of `Sample`.
    """
    samples = []
    for source, entry in entries:
        try:
            samples.append(make(source, entry))
        except ValueError as error:
            problems.add(str(error))
    return [sample for sample in samples if sample is not None]


def keep_existing(samples: Sequence[Sample], name: str) -> list[Sample]:
    """Returns the samples whose files are on disk; warns about the others."""
    kept, missing = [], []
    for sample in samples:
        paths = [v for m, v in sample.inputs.items() if m != "text"]
        absent = [path for path in paths if not os.path.exists(path)]
        missing.extend(absent[:1])
        if not absent:
            kept.append(sample)
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        warnings.warn(
            f"{name}: {len(missing)} of {len(samples)} listed samples are "
            f"not on disk and are left out: {shown}",
            stacklevel=3,
        )
    if samples and not kept:
        raise ValueError(
            f"{name}: none of the {len(samples)} listed samples is on disk. "
            f"The first one looked for: {missing[0]!r}"
        )
    return kept


def check_count(name: str, found: int, published: int | None) -> None:
    """Warns if a split does not have its published number of samples."""
    if published is not None and found != published:
        difference = published - found
        words = f"{abs(difference)} {'missing' if difference > 0 else 'extra'}"
        warnings.warn(
            f"{name}: found {found} samples where {published} are published "
            f"({words}).",
            stacklevel=3,
        )


def check_split(split: str, allowed: Sequence[str]) -> None:
    """Raises `ValueError` if there is no such split."""
    if split not in allowed:
        raise ValueError(
            f"`split` must be one of {', '.join(allowed)}. "
            f"Received: split={split!r}"
        )


def partition(
    items: Sequence[Any], fractions: dict[str, float], seed: int
) -> dict[str, list[Any]]:
    """Divides items at random into named parts.

    Args:
        items: The items; their order matters to the result.
        fractions: dict. Share of each part; they sum to 1. The first part
            takes what rounding leaves.
        seed: int. The same seed gives the same parts.

    Returns:
        A dict of lists that together hold every item once, each in the order
        of `items`.

    Example:
    >>> from keras_mla.datasets import listing
    >>> listing.partition("abcde", {"train": 0.8, "test": 0.2}, 0)["test"]
    ['c']
    """
    if abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) < 0:
        raise ValueError(
            "The fractions of a split must be positive and sum to 1. "
            f"Received: fractions={fractions}"
        )
    order = np.random.default_rng(seed).permutation(len(items))
    parts: dict[str, list[Any]] = {}
    taken = 0
    first = next(iter(fractions))
    for name, fraction in fractions.items():
        if name != first:
            count = round(fraction * len(items))
            parts[name] = [items[i] for i in sorted(order[taken:][:count])]
            taken += count
    parts[first] = [items[i] for i in sorted(order[taken:])]
    return parts


def carve_validation(
    split: str,
    samples_of: Callable[[str], list[Sample]],
    share: float,
    seed: int,
) -> list[Sample]:
    """Takes a validation split out of the training list, seeded.

    Args:
        split: str. `"train"`, `"validation"` or `"test"`.
        samples_of: Returns the samples of the list file of a split.
        share: float. Share of the training list that becomes validation.
        seed: int. Which samples those are.

    Returns:
        The samples of the split.

    Raises:
        ValueError: If validation is asked for and `share` is 0.
    """
    if not 0 <= share < 1:
        raise ValueError(
            "`validation_share` must be at least 0 and below 1. "
            f"Received: validation_share={share}"
        )
    if split == "test" or (split == "train" and share == 0):
        return samples_of(split)
    if share == 0:
        raise ValueError(
            "This data set publishes no validation split: give "
            "`validation_share`, for example 0.1, the same for 'train' and "
            "'validation', to take one out of the training list."
        )
    parts = {"train": 1 - share, "validation": share}
    return partition(samples_of("train"), parts, seed)[split]
