"""Samples, made from the entries of a list and checked against the disk."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keras_mla.datasets.listing.problems import Problems


@dataclasses.dataclass(frozen=True)
class Sample:
    """One sample of a data set, before anything is decoded.

    Attributes:
        id: str. The name that the data set gives the sample.
        label: int, such as an index into the data set's `class_names`; float;
            or a sequence of numbers, such as a yes or no for each of several
            labels. The labels of a data set are of one kind.
        inputs: dict of modality name to what the modality's reader decodes: a
            path of a file or of a folder of frames, a text, several paths
            for `pipeline.image_reader(pictures=...)`, or any object for a
            reader of your own. A modality that it does not name is absent.
        source: str. The list file and line (or the file) that names the
            sample. Messages of errors begin with it.
        span: pair of floats. Start and end in seconds, if the sample is a
            part of its video. `None` stands for the whole file.
    """

    id: str
    label: Any
    inputs: dict[str, Any]
    source: str
    span: tuple[float, float] | None = None


def make_samples(
    entries: Iterable[tuple[str, Any]],
    make: Callable[[str, Any], Sample | None],
    problems: Problems,
) -> list[Sample]:
    """Makes a sample of each entry of a list.

    Args:
        entries: Pairs of the source and the entry, such as `read_lines` gives.
        make: `(source, entry) -> Sample`. It returns `None` to pass over the
            entry, and raises `ValueError` if the entry is wrong.
        problems: `Problems`. It decides what happens to a wrong entry.

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


def keep_existing(
    samples: Sequence[Sample], name: str, problems: Problems
) -> list[Sample]:
    """Returns the samples whose files are on disk; warns about the others.

    If `problems.absent`, a sample without some of its files stays, without
    these modalities. A sample without any modality is left out.

    Args:
        samples: The samples of a list.
        name: str. Name of the data set, for warnings.
        problems: `Problems`. It decides what happens to a sample without some
            of its files.

    Raises:
        ValueError: If no sample is on disk.
    """
    kept, missing, incomplete = [], [], []
    for sample in samples:
        absent = {
            modality: path
            for modality, path in sample.inputs.items()
            if modality != "text" and not os.path.exists(path)
        }
        left = {m: v for m, v in sample.inputs.items() if m not in absent}
        first = next(iter(absent.values()), "")
        if left and absent and problems.absent:
            incomplete.append(first)
            kept.append(dataclasses.replace(sample, inputs=left))
        elif absent:
            missing.append(first)
        else:
            kept.append(sample)
    for paths, what in (
        (missing, "are not on disk and are left out"),
        (incomplete, "lack a file, which is an absent modality"),
    ):
        if paths:
            shown = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
            warnings.warn(
                f"{name}: {len(paths)} of {len(samples)} listed samples "
                f"{what}: {shown}",
                stacklevel=3,
            )
    if samples and not kept:
        raise ValueError(
            f"{name}: none of the {len(samples)} listed samples is on disk. "
            f"The first one looked for: {missing[0]!r}"
        )
    return kept


def check_count(name: str, found: int, published: int | None) -> None:
    """Warns if a split does not have its published number of samples.

    Args:
        name: str. What was counted, such as the data set and its split. The
            warning begins with it.
        found: int. The number of samples that were found.
        published: int. The published number. `None` stands for any number.
    """
    if published is not None and found != published:
        difference = published - found
        words = f"{abs(difference)} {'missing' if difference > 0 else 'extra'}"
        warnings.warn(
            f"{name}: found {found} samples where {published} are published "
            f"({words}).",
            stacklevel=3,
        )
