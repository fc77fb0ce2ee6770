"""Columns of paths: pictures, sounds and videos."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from keras_mla.datasets import listing
from keras_mla.datasets.pipeline import (
    Reader,
    audio_reader,
    image_reader,
    video_reader,
)
from keras_mla.datasets.readers import audio, image
from keras_mla.datasets.table import cells
from keras_mla.datasets.table.field import Field


class _Files(Field):
    """Paths of files, relative to the table's folder."""

    @property
    def in_memory(self) -> bool:
        """Whether the values are an array: they are paths."""
        return False

    def values(
        self, frame: Any, present: np.ndarray, root: str | None
    ) -> list[Any]:
        """Returns the path of each row, `None` where the cell is empty.

        Raises:
            ValueError: If a path leaves the root.
        """
        [column] = self.columns
        return self._paths(frame, column, root)

    def _paths(
        self, frame: Any, column: str, root: str | None
    ) -> list[str | None]:
        words = cells.words_of(frame[column])
        if root is None and any(words):
            raise ValueError(
                f"Column {column!r} holds paths of files: say in which folder "
                "they are, with `root=`. (For a table that `read_table` has "
                "read, it is the folder of the table.)"
            )
        paths: list[str | None] = []
        for position, word in enumerate(words):
            if not word:
                paths.append(None)
                continue
            source = cells.place(frame, position, column)
            paths.append(path_under(root or "", word, source))
        return paths


class Image(_Files):
    """Pictures, from files.

    Args:
        columns: str, the column of paths; or a sequence of several, for
            several pictures of each row, `(batch, pictures, size, size, 3)`.
            A row with fewer pictures repeats them. A row without any lacks
            the modality.
        settings: `ImageSettings`. Defaults to `image.RESNET`.

    Example:
    >>> from keras_mla.datasets import table
    >>> keras.utils.save_img("a.png", np.zeros((20, 30, 3)))
    >>> t = table.Table({"image": table.Image("photo")}, root=".")
    >>> rows = {"photo": ["a.png", None]}
    >>> x = t.adapt(rows, verbose=0).inputs({"photo": ["a.png"]})
    >>> x["image"].shape
    (1, 224, 224, 3)
    """

    kind = "image"

    def __init__(
        self,
        columns: str | Sequence[str],
        settings: image.ImageSettings = image.RESNET,
    ) -> None:
        super().__init__(columns)
        self.settings = settings

    def values(
        self, frame: Any, present: np.ndarray, root: str | None
    ) -> list[Any]:
        """Returns the path, or the list of paths, of each row."""
        if len(self.columns) == 1:
            return super().values(frame, present, root)
        found = [self._paths(frame, name, root) for name in self.columns]
        rows = [[p for p in row if p] for row in zip(*found, strict=True)]
        return [row or None for row in rows]

    def reader(self, modality: str) -> Reader:
        """Returns the reader of pictures."""
        several = None if len(self.columns) == 1 else len(self.columns)
        return image_reader(self.settings, modality, pictures=several)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a picture, or of the pictures of a row."""
        several = () if len(self.columns) == 1 else (len(self.columns),)
        return (*several, *self.settings.shape)

    def describe(self) -> str:
        """Returns the size of pictures."""
        return f"pictures {self.shape} ({', '.join(self.columns)})"

    def get_config(self) -> dict[str, Any]:
        """Returns arguments, as JSON has them."""
        return {
            **super().get_config(),
            "settings": _plain(self.settings),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Makes a field of its config."""
        return super().from_config(
            {**config, "settings": _image_settings(config["settings"])}
        )


class Sound(_Files):
    """Sounds, from sound files or the sound of videos, as spectrograms.

    Args:
        columns: str. The column of paths.
        settings: `Fbank` or `STFT` of `keras_mla.datasets.audio`. Defaults to
            `Fbank()`.
    """

    kind = "sound"

    def __init__(
        self,
        columns: str | Sequence[str],
        settings: audio.Fbank | audio.STFT | None = None,
    ) -> None:
        super().__init__(columns)
        _check_one(self)
        self.settings = settings or audio.Fbank()

    def reader(self, modality: str) -> Reader:
        """Returns the reader of sounds."""
        return audio_reader(self.settings, modality)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a spectrogram."""
        return self.settings.shape

    def describe(self) -> str:
        """Returns the size of spectrograms."""
        return f"spectrograms {self.shape} ({self.columns[0]})"

    def get_config(self) -> dict[str, Any]:
        """Returns arguments, as JSON has them."""
        name = "STFT" if isinstance(self.settings, audio.STFT) else "Fbank"
        return {
            **super().get_config(),
            "settings": {"class_name": name, **_plain(self.settings)},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Makes a field of its config."""
        settings = dict(config["settings"])
        kinds = {"STFT": audio.STFT, "Fbank": audio.Fbank}
        made = kinds[settings.pop("class_name")](**settings)
        return super().from_config({**config, "settings": made})


class Video(_Files):
    """Evenly spaced frames, from videos or folders of pictures.

    Args:
        columns: str. The column of paths.
        settings: `ImageSettings`. Defaults to `image.RESNET`.
        frames: int. Number of frames, or `None` for the middle frame without
            that axis. Defaults to `3`.

    Raises:
        ValueError: If there is not exactly one column, or `frames` is less
            than 1.
    """

    kind = "video"

    def __init__(
        self,
        columns: str | Sequence[str],
        settings: image.ImageSettings = image.RESNET,
        frames: int | None = 3,
    ) -> None:
        super().__init__(columns)
        _check_one(self)
        if frames is not None and frames < 1:
            raise ValueError(
                "`frames` must be at least 1, or None. "
                f"Received: frames={frames}"
            )
        self.settings = settings
        self.frames = frames

    def reader(self, modality: str) -> Reader:
        """Returns the reader of frames."""
        return video_reader(self.settings, self.frames, modality)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the frames."""
        several = (self.frames,) if self.frames else ()
        return (*several, *self.settings.shape)

    def describe(self) -> str:
        """Returns the size of frames."""
        return f"frames {self.shape} ({self.columns[0]})"

    def get_config(self) -> dict[str, Any]:
        """Returns arguments, as JSON has them."""
        return {
            **super().get_config(),
            "settings": _plain(self.settings),
            "frames": self.frames,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Makes a field of its config."""
        return super().from_config(
            {**config, "settings": _image_settings(config["settings"])}
        )


def path_under(root: str, word: str, source: str) -> str:
    """Returns the absolute path of a cell, which must be under the root.

    Raises:
        ValueError: If the path leaves the root.
    """
    if os.path.isabs(word) and "\0" not in word:
        base = os.path.realpath(root)
        relative = os.path.relpath(os.path.realpath(word), base)
        if relative == os.pardir or relative.startswith(os.pardir + os.sep):
            raise ValueError(
                f"{source}: the path is not under the root {base!r}: give "
                f"another `root=`. Received: {word!r}"
            )
        return os.path.join(base, relative)
    return listing.safe_path(root, word, source)


def _check_one(field: _Files) -> None:
    if len(field.columns) > 1:
        raise ValueError(
            f"{type(field).__name__} takes one column of files. Give each "
            "column a modality of its own. "
            f"Received: columns {list(field.columns)}"
        )


def _plain(settings: Any) -> dict[str, Any]:
    """Returns settings as JSON has them."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(settings).items()
    }


def _image_settings(config: dict[str, Any]) -> image.ImageSettings:
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.items()
    }
    return image.ImageSettings(**settings)
