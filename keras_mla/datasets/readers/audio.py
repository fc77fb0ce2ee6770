"""Sound: decoding and resampling; spectrograms are in `spectrograms`."""

import math
import os
import struct

import numpy as np

from keras_mla.datasets import extras

# Here too, since users know the one module `keras_mla.datasets.audio`.
from keras_mla.datasets.readers.spectrograms import AUDIOSET as AUDIOSET
from keras_mla.datasets.readers.spectrograms import CAVMAE as CAVMAE
from keras_mla.datasets.readers.spectrograms import (
    KINETICS_SOUNDS as KINETICS_SOUNDS,
)
from keras_mla.datasets.readers.spectrograms import STFT as STFT
from keras_mla.datasets.readers.spectrograms import Fbank as Fbank
from keras_mla.datasets.readers.spectrograms import log_mel as log_mel
from keras_mla.datasets.readers.spectrograms import (
    spec_augment as spec_augment,
)
from keras_mla.datasets.readers.video import open_video

__all__ = [
    "AUDIOSET",
    "CAVMAE",
    "Fbank",
    "KINETICS_SOUNDS",
    "STFT",
    "decode",
    "log_mel",
    "resample",
    "spec_augment",
]

_RATES = (1_000, 384_000)
_MAX_CHANNELS = 64
_SOUND_FILES = (
    ".wav .wave .rf64 .w64 .flac .mp3 .ogg .aiff .aif .aifc .au .snd .caf"
).split()


def decode(
    path: str | os.PathLike,
    rate: int = 16000,
    start: float = 0.0,
    seconds: float | None = None,
    max_seconds: float = 3600.0,
) -> np.ndarray:
    """Reads a sound file, or the audio track of a video, as mono.

    soundfile decodes WAV (also RF64 and W64), FLAC, MP3, Ogg, AIFF, AU and
    CAF, of 8 to 64 bits, integer, float or companded. PyAV decodes the first
    audio track of every other file, taken for a video. Up to 64 channels are
    averaged.

    Args:
        path: str or path. The file.
        rate: int. Samples per second of the result. Defaults to `16000`.
        start: float. Where to begin, in seconds. Defaults to `0.0`.
        seconds: float. How much to read. Defaults to all.
        max_seconds: float. A longer sound is refused. Defaults to an hour.

    Returns:
        float32 array `(samples,)`, in [-1, 1] for integer formats. A file of
        floats may exceed that range, and its samples are left as they are.

    Raises:
        ValueError: If the file is missing, damaged, truncated or empty, its
            header promises more than it holds, it is too long, has more than
            64 channels, or holds NaN or infinity. The message names the file.
        ImportError: If soundfile (or, for videos, PyAV) is not installed.

    Example:
    >>> import soundfile
    >>> soundfile.write("1001_DFA_ANG_XX.wav", np.zeros(44100), 44100)
    >>> keras_mla.datasets.audio.decode("1001_DFA_ANG_XX.wav").shape
    (16000,)
    """
    path = os.fspath(path)
    limit = max_seconds if seconds is None else min(seconds, max_seconds)
    sound = os.path.splitext(path)[1].lower() in _SOUND_FILES
    read = _read_sound if sound else _read_track
    waveform, native = read(path, start, limit + (seconds is None))
    if waveform.size == 0:
        raise ValueError(f"{path!r} holds no sound (from {start} s on).")
    if seconds is None and waveform.size > max_seconds * native:
        raise ValueError(
            f"{path!r} is longer than {max_seconds:g} s. Give `seconds`, or "
            "raise `max_seconds`."
        )
    if not np.isfinite(waveform).all():
        raise ValueError(f"{path!r} holds samples that are not numbers.")
    return resample(waveform, native, rate)


def _read_sound(
    path: str, start: float, seconds: float
) -> tuple[np.ndarray, int]:
    soundfile = extras.need("soundfile", "decode sounds")
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels = file.samplerate, file.channels
            if not _RATES[0] <= rate <= _RATES[1]:
                raise ValueError(
                    f"{path!r} has an implausible header: {rate} samples per "
                    "second."
                )
            if channels > _MAX_CHANNELS:
                raise ValueError(
                    f"{path!r} has {channels} channels. At most "
                    f"{_MAX_CHANNELS} are averaged."
                )
            _check_wav(path)
            promised = file.frames - round(start * rate)
            if start and promised > 0:
                file.seek(round(start * rate))
            wanted = min(math.ceil(seconds * rate), max(promised, 0))
            # Blocks, since a header can promise more than the memory holds.
            blocks, missing = [], wanted
            while missing > 0:
                block = file.read(
                    min(missing, 1 << 18), dtype="float32", always_2d=True
                )
                if not len(block):
                    break
                blocks.append(
                    block[:, 0] if channels == 1 else block.mean(axis=1)
                )
                missing -= len(block)
            if missing > 0 and file.format != "MPEG":
                raise ValueError(
                    f"{path!r} is truncated: {missing} of {wanted} samples "
                    "are missing."
                )
    except (soundfile.SoundFileError, OSError) as error:
        raise ValueError(f"Cannot decode {path!r}: {error}") from error
    return _join(blocks), rate


def _join(blocks: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _check_wav(path: str) -> None:
    """Compares what a WAV header promises with what the file holds."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        while len(chunk := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", chunk)
            if name == b"data":
                held = size - file.tell()
                # Recorders that stream write 0 or the largest number here.
                if held < length < 0xFFFF0000:
                    raise ValueError(
                        f"{path!r} is truncated or its header is wrong: it "
                        f"promises {length} bytes of sound and holds {held}."
                    )
                return
            file.seek(length + length % 2, os.SEEK_CUR)


def _read_track(
    path: str, start: float, seconds: float
) -> tuple[np.ndarray, int]:
    av = extras.need("av", "decode videos and their sound")
    with open_video(path) as container:
        if not container.streams.audio:
            raise ValueError(f"{path!r} has no audio track.")
        stream = container.streams.audio[0]
        rate = int(stream.rate or 0)
        if not _RATES[0] <= rate <= _RATES[1]:
            raise ValueError(
                f"{path!r} has an implausible header: {rate} samples per "
                "second."
            )
        mono = av.AudioResampler(format="flt", layout="mono", rate=rate)
        first = round(start * rate)
        wanted = first + math.ceil(seconds * rate)
        blocks: list[np.ndarray] = []
        held = 0
        try:
            for frame in container.decode(stream):
                # Timestamps are dropped: joined samples need none, and the
                # gaps that some videos have would stop the conversion.
                frame.pts = None
                for part in mono.resample(frame):
                    blocks.append(part.to_ndarray()[0])
                    held += blocks[-1].size
                if held >= wanted:
                    break
        except (av.FFmpegError, ValueError) as error:
            raise ValueError(
                f"Cannot decode the audio track of {path!r}: {error}"
            ) from error
    return _join(blocks)[first:wanted], rate


def resample(waveform: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Changes the number of samples per second, by SciPy's polyphase filter.

    Args:
        waveform: float array `(samples,)`.
        rate: int. Samples per second of `waveform`.
        new_rate: int. Samples per second of the result.

    Returns:
        float32 array `(ceil(samples * new_rate / rate),)`.
    """
    waveform = np.asarray(waveform, np.float32)
    if rate == new_rate:
        return waveform
    signal = extras.need("scipy.signal", "resample sounds")
    divisor = math.gcd(rate, new_rate)
    return signal.resample_poly(
        waveform, new_rate // divisor, rate // divisor
    ).astype(np.float32)
