"""What data sets of clips share: lists of clips, their sound and frames."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from keras_mla.datasets import listing, pipeline
from keras_mla.datasets.listing import Problems, Sample
from keras_mla.datasets.readers.audio import STFT, Fbank
from keras_mla.datasets.readers.image import ImageSettings

FRAMES = "Image-01-FPS"
"""The folder of frames that `keras_mla.datasets.prepare` writes."""


def list_clips(
    name: str,
    root: str,
    split: str,
    make: Callable[[str, Any], Sample | None],
    problems: Problems,
    *,
    read: Callable[[str, str], Iterable[tuple[str, Any]]],
    list_file: str | os.PathLike | None,
    names: Sequence[str],
    published: Mapping[str, int],
    validation_share: float,
    seed: int,
    own_validation: bool = False,
) -> list[Sample]:
    """Returns the clips of a split that has a list file.

    Args:
        name: str. Name of the data set, for warnings.
        root: str. The data folder.
        split: str. Name of the split.
        make: `(source, entry) -> Sample`, see `listing.make_samples`.
        problems: `Problems`. It decides what happens to a wrong line.
        read: `(path, split)` to pairs of source and entry.
        list_file: See `listing.find_list`.
        names: See `listing.find_list`. `{}` stands for the split.
        published: dict of split to int. Number of clips in the published
            list, not checked if `list_file` is given.
        validation_share: See `listing.carve_validation`.
        seed: See `listing.carve_validation`.
        own_validation: bool. Whether the list has a validation split.
    """

    def listed(part: str) -> list[Sample]:
        path = listing.find_list(
            root,
            part,
            list_file,
            "csv txt",
            [name.format(part) for name in names],
        )
        samples = listing.make_samples(read(path, part), make, problems)
        kept = listing.keep_existing(samples, f"{name} {part}", problems)
        if list_file is None:
            listing.check_count(f"{name} {part}", len(kept), published[part])
        return kept

    if own_validation and validation_share == 0:
        return listed(split)
    return listing.carve_validation(split, listed, validation_share, seed)


def inputs(
    audio: str, frames: str, video: str, has_audio: bool
) -> dict[str, str]:
    """Returns where a clip's sound and frames are: cut out, or in its video.

    Args:
        audio: str. The sound's own file.
        frames: str. The folder of frames.
        video: str. The file of the video.
        has_audio: bool. Whether the sound has its own file.
    """
    return {
        "audio": audio if has_audio else video,
        "video": frames if os.path.isdir(frames) else video,
    }


def readers(
    audio: Fbank | STFT | None, image: ImageSettings, frames: int
) -> dict[str, pipeline.Reader]:
    """Returns the readers of sound and frames."""
    return {
        "audio": pipeline.audio_reader(audio),
        "video": pipeline.video_reader(image, frames),
    }
