"""Sound: decoding, resampling, log-mel and STFT spectrograms, SpecAugment."""

import dataclasses
import functools
import math
import os
import struct
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

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

# Mean and standard deviation of log-mel values, as published with AudioSet
# models (AST), with OGM-GE for Kinetics-Sounds, and with CAV-MAE.
AUDIOSET = (-4.2677393, 4.5689974)
KINETICS_SOUNDS = (-4.503877, 5.141276)
CAVMAE = (-5.081, 4.4849)

_RATES = (1_000, 384_000)
_SOUND_FILES = (".wav", ".flac", ".mp3", ".ogg", ".aiff", ".aif", ".au")


def decode(
    path: str | os.PathLike,
    rate: int = 16000,
    start: float = 0.0,
    seconds: float | None = None,
    max_seconds: float = 3600.0,
) -> np.ndarray:
    """Reads a sound file, or the audio track of a video, as mono.

    WAV, FLAC, MP3, Ogg and AIFF are decoded by soundfile; every other file is
    taken for a video and its first audio track decoded by PyAV. Channels are
    averaged.

    Args:
        path: str or path. The file.
        rate: int. Samples per second of the result. Defaults to `16000`.
        start: float. Where to begin, in seconds. Defaults to `0.0`.
        seconds: float or `None`. How much to read; `None` is all.
        max_seconds: float. A longer sound is refused. Defaults to an hour.

    Returns:
        float32 array `(samples,)`, in [-1, 1] for integer formats.

    Raises:
        ValueError: If the file is missing, damaged, truncated or empty, its
            header promises more than it holds, or it is too long.
        ImportError: If soundfile (or, for videos, PyAV) is not installed.

    Example:
    ```python
    waveform = keras_mla.datasets.audio.decode("1001_DFA_ANG_XX.wav")
    ```
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
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            rate, channels = file.samplerate, file.channels
            if not _RATES[0] <= rate <= _RATES[1] or not 1 <= channels <= 64:
                raise ValueError(
                    f"{path!r} has an implausible header: {rate} samples per "
                    f"second, {channels} channels."
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
    import av

    from keras_mla.datasets.video import open_video

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
        rate: int. Its samples per second.
        new_rate: int. The samples per second wanted.

    Returns:
        float32 array `(ceil(samples * new_rate / rate),)`.
    """
    waveform = np.asarray(waveform, np.float32)
    if rate == new_rate:
        return waveform
    from scipy.signal import resample_poly

    divisor = math.gcd(rate, new_rate)
    return resample_poly(waveform, new_rate // divisor, rate // divisor).astype(
        np.float32
    )


@functools.cache
def _tfio_audio() -> Any:
    """Imports tensorflow-io, whose native parts warn that they don't load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_io as tfio

        return tfio.audio


def log_mel(
    waveform: "tf.Tensor", rate: int = 16000, mels: int = 128
) -> "tf.Tensor":
    """Log-mel filter bank energies of one waveform, as Kaldi computes them.

    The waveform's mean is subtracted; frames of 25 ms every 10 ms (only whole
    ones) lose their own mean, are pre-emphasised by 0.97 and windowed by a
    symmetric Hann window; the power spectrum over the next power of two goes
    through triangular filters, equally spaced from 20 Hz to half the rate on
    the scale `1127 ln(1 + f / 700)`; the result is `ln(max(energy, 2^-23))`.

    Args:
        waveform: float tensor `(samples,)`. Less than one window is padded.
        rate: int. Samples per second. Defaults to `16000`.
        mels: int. Number of filters. Defaults to `128`.

    Returns:
        float32 tensor `(frames, mels)`, with
        `frames = 1 + (samples - 0.025 rate) // (0.010 rate)`.

    Reference:
        Gong et al., "AST: Audio Spectrogram Transformer", Interspeech 2021,
        section 2.1 (the settings); Kaldi's `compute-fbank-feats`.
    """
    import tensorflow as tf

    window, hop = rate * 25 // 1000, rate * 10 // 1000
    waveform = tf.cast(waveform, tf.float32)
    waveform -= tf.reduce_mean(waveform)
    short = tf.maximum(0, window - tf.shape(waveform)[0])
    frames = tf.signal.frame(tf.pad(waveform, [[0, short]]), window, hop)
    frames -= tf.reduce_mean(frames, axis=1, keepdims=True)
    frames -= 0.97 * tf.concat([frames[:, :1], frames[:, :-1]], axis=1)
    weights, filters = _mel_constants(rate, mels, window)
    size = 2 * (len(filters) - 1)
    spectrum = _tfio_audio().spectrogram(frames * weights, size, window, window)
    power = tf.square(tf.reshape(spectrum, (-1, len(filters))))
    energies = tf.matmul(power, filters)
    return tf.math.log(tf.maximum(energies, 2.0**-23))


@functools.cache
def _mel_constants(
    rate: int, mels: int, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what each frame is multiplied by, and the mel filters.

    They are computed here, once, since a `tf.data` pipeline would compute
    tensorflow-io's filters anew for every sample.
    """
    import tensorflow as tf

    size = 1 << (window - 1).bit_length()
    with tf.init_scope():
        periodic = tf.signal.hann_window(window).numpy()
        identity = tf.eye(size // 2 + 1)
        filters = _tfio_audio().melscale(identity, rate, mels, 20.0, rate / 2)
        # tensorflow-io windows by TensorFlow's Hann window, which is periodic
        # for even lengths: dividing by it leaves Kaldi's symmetric one.
        n = np.arange(window)
        symmetric = 0.5 - 0.5 * np.cos(2 * np.pi * n / (window - 1))
        weights = np.divide(
            symmetric, periodic, out=np.zeros(window), where=periodic != 0
        )
        return weights.astype(np.float32), filters.numpy()


def spec_augment(
    spectrogram: "tf.Tensor", time_mask: int, freq_mask: int
) -> "tf.Tensor":
    """Sets one random band of times and one of frequencies to zero.

    The widths are uniform in `[0, time_mask)` and `[0, freq_mask)`, and a
    width of 0 masks nothing. The draws are tensorflow-io's: their order, and
    so the result, is fixed by a seed only where calls are sequential.

    Args:
        spectrogram: float tensor `(time, frequency)`, normalised, so that
            zero is its mean.
        time_mask: int. Bound of the masked number of times; 0 masks none.
        freq_mask: int. Bound of the masked number of frequencies.

    Returns:
        A tensor of the same shape.

    Reference:
        Park et al., "SpecAugment", Interspeech 2019.
    """
    if freq_mask:
        spectrogram = _tfio_audio().freq_mask(spectrogram, param=freq_mask)
    if time_mask:
        spectrogram = _tfio_audio().time_mask(spectrogram, param=time_mask)
    return spectrogram


@dataclasses.dataclass(frozen=True)
class Fbank:
    """The paper's audio input: a normalised log-mel filter bank.

    `(log_mel - mean) / (2 std)`, after padding with zeros or cutting to
    `frames`, as AST, OGM-GE and CAV-MAE do.

    Args:
        rate: int. Samples per second. Defaults to `16000`.
        frames: int. Frames of 10 ms kept. Defaults to `1024`.
        mels: int. Number of filters. Defaults to `128`.
        mean: float. Mean of the log-mel values. Defaults to AudioSet's.
        std: float. Their standard deviation. Defaults to AudioSet's.
        time_mask: int. SpecAugment in training, see `spec_augment`.
        freq_mask: int. SpecAugment in training; AST uses 192 and 48.
        channel: bool. Adds a last axis of size 1, as convolutions expect.

    Call arguments:
        waveform: float tensor `(samples,)`.

    Returns:
        float32 tensor `(frames, mels, 1)`, without the last axis if
        `channel=False`.

    Example:
    ```python
    fbank = keras_mla.datasets.audio.Fbank()
    features = fbank(keras_mla.datasets.audio.decode("a.wav", fbank.rate))
    ```
    """

    rate: int = 16000
    frames: int = 1024
    mels: int = 128
    mean: float = AUDIOSET[0]
    std: float = AUDIOSET[1]
    time_mask: int = 0
    freq_mask: int = 0
    channel: bool = True

    def __post_init__(self) -> None:
        _check_masks(self.time_mask, self.frames, self.freq_mask, self.mels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return (self.frames, self.mels) + ((1,) if self.channel else ())

    @property
    def seconds(self) -> float:
        """How much of a waveform the frames cover."""
        return self.frames * 0.01 + 0.015

    def __call__(self, waveform: "tf.Tensor") -> "tf.Tensor":
        """Computes the features of one waveform."""
        import tensorflow as tf

        features = log_mel(waveform, self.rate, self.mels)[: self.frames]
        missing = self.frames - tf.shape(features)[0]
        features = tf.pad(features, [[0, missing], [0, 0]])
        features = (features - self.mean) / (2 * self.std)
        return tf.reshape(features, self.shape)

    def augment(self, features: "tf.Tensor") -> "tf.Tensor":
        """Applies SpecAugment to one sample's features."""
        import tensorflow as tf

        flat = tf.reshape(features, self.shape[:2])
        flat = spec_augment(flat, self.time_mask, self.freq_mask)
        return tf.reshape(flat, self.shape)


@dataclasses.dataclass(frozen=True)
class STFT:
    """The audio input of earlier work on CREMA-D: a log-magnitude STFT.

    The waveform is repeated (or cut) to `seconds`, clipped to [-1, 1], padded
    by `n_fft / 2` zeros on either side, and transformed with a periodic Hann
    window: `ln(|S| + 1e-7)`. With the defaults that is 257 x 188.

    Args:
        rate: int. Samples per second. Defaults to `22050`.
        seconds: float. Length. Defaults to `3.0`.
        n_fft: int. Window and transform length. Defaults to `512`.
        hop: int. Samples between windows. Defaults to `353`.
        time_mask: int. SpecAugment in training, see `spec_augment`.
        freq_mask: int. SpecAugment in training.
        channel: bool. Adds a last axis of size 1.

    Call arguments:
        waveform: float tensor `(samples,)`, not empty.

    Returns:
        float32 tensor `(n_fft / 2 + 1, times, 1)`: frequencies come first.

    Reference:
        Peng et al., "Balanced Multimodal Learning via On-the-fly Gradient
        Modulation", CVPR 2022 (the settings).
    """

    rate: int = 22050
    seconds: float = 3.0
    n_fft: int = 512
    hop: int = 353
    time_mask: int = 0
    freq_mask: int = 0
    channel: bool = True

    def __post_init__(self) -> None:
        frequencies, times = self.shape[:2]
        _check_masks(self.time_mask, times, self.freq_mask, frequencies)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        times = 1 + round(self.seconds * self.rate) // self.hop
        return (self.n_fft // 2 + 1, times) + ((1,) if self.channel else ())

    def __call__(self, waveform: "tf.Tensor") -> "tf.Tensor":
        """Computes the features of one waveform."""
        import tensorflow as tf

        length = round(self.seconds * self.rate)
        repeats = -(-length // tf.shape(waveform)[0])
        waveform = tf.tile(tf.cast(waveform, tf.float32), [repeats])[:length]
        waveform = tf.clip_by_value(waveform, -1.0, 1.0)
        half = self.n_fft // 2
        magnitudes = _tfio_audio().spectrogram(
            tf.pad(waveform, [[half, half]]), self.n_fft, self.n_fft, self.hop
        )[: self.shape[1]]
        features = tf.transpose(tf.math.log(magnitudes + 1e-7))
        return tf.reshape(features, self.shape)

    def augment(self, features: "tf.Tensor") -> "tf.Tensor":
        """Applies SpecAugment to one sample's features."""
        import tensorflow as tf

        flat = tf.transpose(tf.reshape(features, self.shape[:2]))
        flat = spec_augment(flat, self.time_mask, self.freq_mask)
        return tf.reshape(tf.transpose(flat), self.shape)


def _check_masks(time: int, times: int, freq: int, freqs: int) -> None:
    for name, mask, size in (
        ("time_mask", time, times),
        ("freq_mask", freq, freqs),
    ):
        if not 0 <= mask <= size:
            raise ValueError(
                f"`{name}` must be between 0 and the {size} bins of that "
                f"axis. Received: {name}={mask}"
            )
