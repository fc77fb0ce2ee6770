"""Frames of a clip: from a folder of images, or straight from a video."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_mla.datasets import extras
from keras_mla.datasets.readers import image as images

__all__ = [
    "even_indices",
    "frames",
    "frames_per_second",
    "open_video",
    "pictures",
]

# Containers that hold sound or pictures themselves. Playlists are left out:
# they name other files and addresses, which FFmpeg would then open.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,flv,live_flv,avi,matroska,webm,mpeg,mpegts,"
    "asf,ogg,wav,mp3,flac,aac,m4v,h264,mpegvideo"
)
_IMAGE_FILES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


@contextlib.contextmanager
def open_video(path: str | os.PathLike) -> Iterator[Any]:
    """Opens a media file with PyAV, local containers only.

    Args:
        path: str or path. The file.

    Yields:
        `av.container.InputContainer`.

    Raises:
        ValueError: If the file is missing, no media file, or a file that
            merely points to others, such as a playlist.
        ImportError: If PyAV is not installed.
    """
    av = extras.need("av", "decode videos")
    path = os.fspath(path)
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    try:
        # "file:" keeps a name with a colon from being taken for a protocol.
        container = av.open("file:" + path, options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"Cannot open the video {path!r}: {error}") from error
    with container:
        yield container


def even_indices(count: int, n: int) -> list[int]:
    """Returns the middles of `n` equal parts of `range(count)`.

    Args:
        count: int. Length of the range.
        n: int. Number of parts. If it is more than `count`, indices repeat.

    Example:
    >>> keras_mla.datasets.video.even_indices(9, 3)
    [1, 4, 7]
    """
    return [(2 * i + 1) * count // (2 * n) for i in range(n)]


def frames(
    path: str | os.PathLike,
    n: int = 3,
    span: tuple[float, float] | None = None,
    max_pixels: int = 50_000_000,
) -> np.ndarray:
    """Returns `n` evenly spaced frames of a clip.

    The clip is cut into `n` equal parts, and each part gives its middle
    frame. A clip of fewer frames repeats some.

    Args:
        path: str or path. A folder of images, in the order of the numbers in
            their names, or a video file.
        n: int. Number of frames. Defaults to `3`.
        span: pair of floats. Start and end in seconds of the part of a video
            file to take. Defaults to the whole.
        max_pixels: int. Larger frames are refused. Defaults to 50 million.

    Returns:
        uint8 array `(n, height, width, 3)`, RGB.

    Raises:
        ValueError: If the folder holds no images or images of different
            sizes, or the video cannot be decoded or has no frames in `span`.
        ImportError: If PyAV (for a video) or Pillow (for a folder) is not
            installed.

    Example:
    >>> import os
    >>> os.mkdir("clip")
    >>> for i in range(9):
    ...     keras.utils.save_img(f"clip/{i}.png", np.full((4, 6, 3), i))
    >>> clip = keras_mla.datasets.video.frames("clip", n=3)
    >>> clip.shape
    (3, 4, 6, 3)
    """
    return np.stack(
        [np.asarray(frame) for frame in pictures(path, n, span, max_pixels)]
    )


def pictures(
    path: str | os.PathLike,
    n: int = 3,
    span: tuple[float, float] | None = None,
    max_pixels: int = 50_000_000,
) -> list[Any]:
    """Returns what `frames` returns, without joining the frames.

    Args:
        path: str or path. A folder of images, in the order of the numbers in
            their names, or a video file.
        n: int. Number of frames. Defaults to `3`.
        span: pair of floats. Start and end in seconds of the part of a video
            file to take. Defaults to the whole.
        max_pixels: int. Larger frames are refused. Defaults to 50 million.

    Returns:
        list of `PIL.Image.Image` (from a folder) or uint8 arrays
        `(height, width, 3)` (from a video).

    Raises:
        ValueError: If `n` is less than 1; if a folder comes with a `span`, or
            holds no images, images of different sizes or a link that leads
            out of it; or if frames cannot be decoded, are larger than
            `max_pixels`, or there are none in `span`.
        ImportError: If PyAV (for a video) or Pillow (for a folder) is not
            installed.
    """
    if n < 1:
        raise ValueError(f"`n` must be at least 1. Received: n={n}")
    path = os.fspath(path)
    if os.path.isdir(path):
        if span is not None:
            raise ValueError(
                "`span` selects a part of a video file, and a folder of "
                f"images has no times. Received: path={path!r}, span={span}"
            )
        return _from_folder(path, n, max_pixels)
    return _from_video(path, n, span, max_pixels)


def _from_folder(path: str, n: int, max_pixels: int) -> list[Any]:
    names = [f for f in os.listdir(path) if f.lower().endswith(_IMAGE_FILES)]
    if not names:
        raise ValueError(f"The folder {path!r} holds no images.")
    # img_10 comes after img_9.
    names.sort(
        key=lambda f: [
            (0, int(part), "") if part.isdigit() else (1, 0, part)
            for part in re.split(r"([0-9]+)", f)
        ]
    )
    root = os.path.realpath(path)
    chosen = [os.path.join(root, names[i]) for i in even_indices(len(names), n)]
    for file in chosen:
        if os.path.dirname(os.path.realpath(file)) != root:
            raise ValueError(f"{file!r} is a link that leads out of {root!r}.")
    decoded = {f: images.open_image(f, max_pixels) for f in set(chosen)}
    if len({frame.size for frame in decoded.values()}) > 1:
        raise ValueError(f"The images in {path!r} differ in size.")
    return [decoded[file] for file in chosen]


def frames_per_second(
    path: str | os.PathLike,
    rate: float = 1.0,
    span: tuple[float, float] | None = None,
    max_pixels: int = 50_000_000,
) -> Iterator[np.ndarray]:
    """Yields evenly spaced frames of a video, `rate` of them a second.

    The number of frames is the video's length in seconds times `rate`,
    rounded, and at least one. The video is cut into as many equal parts, and
    each part gives its middle frame.

    Args:
        path: str or path. A video file.
        rate: float. Frames per second. Defaults to `1.0`.
        span: pair of floats. Start and end in seconds of the part to take.
            Defaults to the whole.
        max_pixels: int. Larger frames are refused. Defaults to 50 million.

    Yields:
        uint8 arrays `(height, width, 3)`, RGB.

    Raises:
        ValueError: If the video cannot be decoded or has no frames in `span`.
    """
    path = os.fspath(path)
    times, keys, seconds = _plan(path, span, max_pixels)
    n = min(len(times), max(1, round(seconds * rate)))
    targets = [times[i] for i in even_indices(len(times), n)]
    for _, frame in _decode(path, targets, keys, max_pixels):
        yield frame


def _from_video(
    path: str, n: int, span: tuple[float, float] | None, max_pixels: int
) -> list[Any]:
    times, keys, _ = _plan(path, span, max_pixels)
    targets = [times[i] for i in even_indices(len(times), n)]
    found = dict(_decode(path, targets, keys, max_pixels))
    # Where the end cannot be decoded, the nearest frame stands in.
    return [found[min(found, key=lambda t: abs(t - want))] for want in targets]


def _plan(
    path: str, span: tuple[float, float] | None, max_pixels: int
) -> tuple[list[int], list[int], float]:
    """Returns the times of frames and of key frames, and the seconds shown.

    Nothing is decoded. The times are in the units of the file.
    """
    av = extras.need("av", "decode videos")
    with open_video(path) as container:
        if not container.streams.video:
            raise ValueError(f"{path!r} has no pictures.")
        stream = container.streams.video[0]
        if stream.width * stream.height > max_pixels:
            raise ValueError(
                f"Cannot decode {path!r}: {stream.width} x {stream.height} "
                f"pixels are more than max_pixels={max_pixels}"
            )
        times, keys = [], []
        try:
            for packet in container.demux(stream):
                time = packet.pts if packet.pts is not None else packet.dts
                if packet.size and time is not None:
                    times.append(time)
                    if packet.is_keyframe:
                        keys.append(time)
        except av.FFmpegError as error:
            raise ValueError(
                f"Cannot read the video {path!r}: {error}"
            ) from error
        unit = float(stream.time_base or 1)
        offset = stream.start_time or 0
    times.sort()
    keys.sort()
    if span is not None:
        start, end = (second / unit + offset for second in span)
        times = [time for time in times if start <= time < end]
    if not times:
        part = f" between {span[0]} and {span[1]} s" if span else ""
        raise ValueError(f"{path!r} has no frames{part}.")
    # The last frame lasts as long as the others do on average.
    shown = len(times) / max(1, len(times) - 1)
    return times, keys, (times[-1] - times[0]) * unit * shown


def _decode(
    path: str, targets: list[int], keys: list[int], max_pixels: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the frames at the given times, seeking where that saves work."""
    av = extras.need("av", "decode videos")
    position = keys[0] if keys else targets[0]
    count = 0
    # Opened anew, since not every file can be wound back to its start.
    with open_video(path) as container:
        stream = container.streams.video[0]
        decoder = container.decode(stream)
        for target in sorted(set(targets)):
            key = max((k for k in keys if k <= target), default=position)
            try:
                if key > position:
                    # A file that cannot be searched is decoded on.
                    with contextlib.suppress(av.FFmpegError):
                        container.seek(key, stream=stream, backward=True)
                        decoder = container.decode(stream)
                for frame in decoder:
                    time = frame.pts if frame.pts is not None else frame.dts
                    position = position if time is None else time
                    if position >= target:
                        break
                else:
                    continue
            except av.FFmpegError as error:
                raise ValueError(
                    f"Cannot decode the video {path!r}: {error}"
                ) from error
            if frame.width * frame.height > max_pixels:
                raise ValueError(
                    f"Cannot decode {path!r}: a frame of {frame.width} x "
                    f"{frame.height} pixels is more than "
                    f"max_pixels={max_pixels}"
                )
            count += 1
            yield target, frame.to_ndarray(format="rgb24")
    if not count:
        raise ValueError(f"Cannot decode a single frame of {path!r}.")
