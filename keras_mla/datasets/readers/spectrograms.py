"""Sound to log-mel and STFT spectrograms, and SpecAugment."""

import dataclasses
import functools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_mla.datasets import extras
from keras_mla.datasets.readers.arrays import is_tensor

if TYPE_CHECKING:
    import tensorflow as tf

# Mean and standard deviation of log-mel values, as published with AudioSet
# models (AST), with OGM-GE for Kinetics-Sounds, and with CAV-MAE.
AUDIOSET = (-4.2677393, 4.5689974)
KINETICS_SOUNDS = (-4.503877, 5.141276)
CAVMAE = (-5.081, 4.4849)


_TASK = "compute spectrograms in tf.data"
_OTHERWISE = 'pass engine="python"'


@functools.cache
def _tfio_audio() -> Any:
    """Imports tensorflow-io, whose native parts warn that they don't load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return extras.need("tensorflow_io", _TASK, _OTHERWISE).audio


def log_mel(waveform: Any, rate: int = 16000, mels: int = 128) -> Any:
    """Computes log-mel filter bank energies of one waveform, as Kaldi does.

    The waveform loses its mean. Whole frames of 25 ms, one every 10 ms, lose
    their own mean, are pre-emphasised by 0.97 and windowed by a symmetric
    Hann window. The power spectrum over the next power of two goes through
    triangular filters, equally spaced from 20 Hz to half the rate on the
    scale `1127 ln(1 + f / 700)`. The result is `ln(max(energy, 2^-23))`.

    NumPy computes the energies of arrays, tensorflow-io those of tensors.

    Args:
        waveform: float array, or TensorFlow tensor, `(samples,)`. A waveform
            shorter than one window is padded.
        rate: int. Samples per second. Defaults to `16000`.
        mels: int. Number of filters. Defaults to `128`.

    Returns:
        float32 array or tensor `(frames, mels)`, with
        `frames = 1 + (samples - 0.025 rate) // (0.010 rate)`.

    Reference:
        Gong et al., "AST: Audio Spectrogram Transformer", Interspeech 2021,
        section 2.1 (the settings); Kaldi's `compute-fbank-feats`.
    """
    window, hop = rate * 25 // 1000, rate * 10 // 1000
    if is_tensor(waveform):
        return _log_mel_of_tensor(waveform, rate, mels, window, hop)
    waveform = np.asarray(waveform, np.float32)
    waveform = waveform - waveform.mean()
    if len(waveform) < window:
        waveform = np.pad(waveform, (0, window - len(waveform)))
    weights, filters = _mel_filters(rate, mels, window)
    size = 1 << (window - 1).bit_length()
    count = 1 + (len(waveform) - window) // hop
    result: np.ndarray = np.empty((count, mels), np.float32)
    # As many frames at a time as the processor's cache holds.
    for start in range(0, count, _BLOCK):
        block = result[start : start + _BLOCK]
        frames = _frames(waveform, window, hop, start, len(block))
        frames = frames - frames.mean(axis=1, keepdims=True)
        emphasised = np.empty_like(frames)
        np.multiply(frames[:, :-1], np.float32(-0.97), out=emphasised[:, 1:])
        np.multiply(frames[:, 0], np.float32(-0.97), out=emphasised[:, 0])
        emphasised += frames
        emphasised *= weights
        spectrum = np.fft.rfft(emphasised, size)
        power = np.square(spectrum.real)
        power += np.square(spectrum.imag)
        for first, part in filters:
            bins, some = part.shape
            block[:, first[1] : first[1] + some] = (
                power[:, first[0] : first[0] + bins] @ part
            )
    np.maximum(result, np.float32(2.0**-23), out=result)
    return np.log(result, out=result)


# Frames and filters that are multiplied at a time. Products so small take one
# thread of BLAS: more threads would stand in the way of the other workers.
_BLOCK = 128
_FILTERS = 8


def _frames(
    waveform: np.ndarray, window: int, hop: int, start: int, count: int
) -> np.ndarray:
    """Returns frames of a waveform, as a view: do not write into it."""
    step = waveform.strides[0]
    return np.lib.stride_tricks.as_strided(
        waveform[start * hop :],
        (count, window),
        (hop * step, step),
        writeable=False,
    )


@functools.cache
def _mel_filters(
    rate: int, mels: int, window: int
) -> tuple[np.ndarray, list[tuple[tuple[int, int], np.ndarray]]]:
    """Returns the symmetric Hann window and the mel filters, for NumPy.

    The filters come in groups: the first bin that a group weighs, its first
    filter, and its weights `(bins, filters)`.
    """
    size = 1 << (window - 1).bit_length()

    def mel(frequency: Any) -> Any:
        return 1127 * np.log1p(np.asarray(frequency) / 700)

    points = np.linspace(mel(20.0), mel(rate / 2), mels + 2)
    bins = mel(np.arange(size // 2 + 1) * rate / size)[:, None]
    up = (bins - points[:-2]) / (points[1:-1] - points[:-2])
    down = (points[2:] - bins) / (points[2:] - points[1:-1])
    filters = np.maximum(np.minimum(up, down), 0).astype(np.float32)
    groups = []
    for start in range(0, mels, _FILTERS):
        part = filters[:, start : start + _FILTERS]
        used = np.flatnonzero(part.any(axis=1))
        low, high = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
        groups.append(((low, start), part[low : high + 1].copy()))
    return np.hanning(window).astype(np.float32), groups


def _log_mel_of_tensor(
    waveform: "tf.Tensor", rate: int, mels: int, window: int, hop: int
) -> "tf.Tensor":
    import tensorflow as tf

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
    """Returns what tensorflow-io multiplies frames by, and its mel filters.

    Both are computed once, because a `tf.data` pipeline would compute
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
    spectrogram: Any,
    time_mask: int,
    freq_mask: int,
    rng: np.random.Generator | None = None,
) -> Any:
    """Sets one random band of times and one of frequencies to zero.

    The widths are uniform in `[0, time_mask)` and `[0, freq_mask)`, and a
    width of 0 masks nothing. tensorflow-io masks tensors: a seed fixes the
    order of its draws, and so the result, only if calls are sequential.

    Args:
        spectrogram: float array, or TensorFlow tensor, `(time, frequency)`,
            normalised, so that zero is its mean.
        time_mask: int. Bound of the number of masked times; 0 masks none.
        freq_mask: int. Bound of the number of masked frequencies.
        rng: `np.random.Generator`. It draws the bands of an array. Defaults
            to a new one.

    Returns:
        An array or a tensor of the same shape.

    Reference:
        Park et al., "SpecAugment", Interspeech 2019.
    """
    if is_tensor(spectrogram):
        if freq_mask:
            spectrogram = _tfio_audio().freq_mask(spectrogram, param=freq_mask)
        if time_mask:
            spectrogram = _tfio_audio().time_mask(spectrogram, param=time_mask)
        return spectrogram
    rng = rng or np.random.default_rng()
    masked = np.array(spectrogram)
    # A view with the masked axis first.
    for view, bound in ((masked.T, freq_mask), (masked, time_mask)):
        if bound:
            width = rng.integers(bound)
            start = rng.integers(len(view) - width)
            view[start : start + width] = 0
    return masked


@dataclasses.dataclass(frozen=True)
class Fbank:
    """The paper's audio input: a normalised log-mel filter bank.

    The result is `(log_mel - mean) / (2 std)`, after padding with zeros or
    cutting to `frames`, as AST, OGM-GE and CAV-MAE do.

    Args:
        rate: int. Samples per second. Defaults to `16000`.
        frames: int. Frames of 10 ms kept. Defaults to `1024`.
        mels: int. Number of filters. Defaults to `128`.
        mean: float. Mean of log-mel values. Defaults to AudioSet's mean.
        std: float. Standard deviation of log-mel values. Defaults to
            AudioSet's deviation.
        time_mask: int. SpecAugment in training, see `spec_augment`. AST uses
            192. Defaults to `0`.
        freq_mask: int. SpecAugment in training. AST uses 48. Defaults to `0`.
        channel: bool. Whether to add a last axis of size 1, as convolutions
            expect. Defaults to `True`.

    Call arguments:
        waveform: float array, or TensorFlow tensor, `(samples,)`.

    Returns:
        float32 array or tensor `(frames, mels, 1)`, without the last axis if
        `channel=False`.

    Example:
    >>> fbank = keras_mla.datasets.audio.Fbank(frames=300)
    >>> features = fbank(np.zeros(3 * fbank.rate, "float32"))
    >>> tuple(features.shape)
    (300, 128, 1)
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
        """Returns the shape of the result."""
        return (self.frames, self.mels) + ((1,) if self.channel else ())

    @property
    def seconds(self) -> float:
        """Returns how much of a waveform the frames cover."""
        return self.frames * 0.01 + 0.015

    def __call__(self, waveform: Any) -> Any:
        """Computes the features of one waveform."""
        features = log_mel(waveform, self.rate, self.mels)[: self.frames]
        if not is_tensor(features):
            whole: np.ndarray = np.zeros((self.frames, self.mels), np.float32)
            whole[: len(features)] = features
            whole -= np.float32(self.mean)
            whole /= np.float32(2 * self.std)
            return whole.reshape(self.shape)
        import tensorflow as tf

        missing = self.frames - tf.shape(features)[0]
        features = tf.pad(features, [[0, missing], [0, 0]])
        features = (features - self.mean) / (2 * self.std)
        return tf.reshape(features, self.shape)

    def augment(
        self, features: np.ndarray, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Applies SpecAugment to one sample's features.

        Args:
            features: float array `(frames, mels, 1)`, without the last axis if
                `channel=False`.
            rng: `np.random.Generator`. It draws the bands. Defaults to a new
                one.

        Returns:
            An array of the same shape.
        """
        flat = np.asarray(features).reshape(self.shape[:2])
        flat = spec_augment(flat, self.time_mask, self.freq_mask, rng)
        return flat.reshape(self.shape)


@dataclasses.dataclass(frozen=True)
class STFT:
    """The audio input of earlier work on CREMA-D: a log-magnitude STFT.

    The waveform is repeated (or cut) to `seconds`, clipped to [-1, 1], padded
    by `n_fft / 2` zeros on either side, and transformed with a periodic Hann
    window. The result is `ln(|S| + 1e-7)`, 257 x 188 with the defaults.

    Args:
        rate: int. Samples per second. Defaults to `22050`.
        seconds: float. Length. Defaults to `3.0`.
        n_fft: int. Length of window and transform. Defaults to `512`.
        hop: int. Samples between windows. Defaults to `353`.
        time_mask: int. SpecAugment in training, see `spec_augment`. Defaults
            to `0`.
        freq_mask: int. SpecAugment in training. Defaults to `0`.
        channel: bool. Whether to add a last axis of size 1. Defaults to
            `True`.

    Call arguments:
        waveform: float array, or TensorFlow tensor, `(samples,)`, not empty.

    Returns:
        float32 array or tensor `(n_fft / 2 + 1, times, 1)`: frequencies come
        first.

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
        """Returns the shape of the result."""
        times = 1 + round(self.seconds * self.rate) // self.hop
        return (self.n_fft // 2 + 1, times) + ((1,) if self.channel else ())

    def __call__(self, waveform: Any) -> Any:
        """Computes the features of one waveform."""
        if not is_tensor(waveform):
            return self._of_array(np.asarray(waveform, np.float32))
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

    def _of_array(self, waveform: np.ndarray) -> np.ndarray:
        length = round(self.seconds * self.rate)
        half, count = self.n_fft // 2, self.shape[1]
        # Ends with zeros where the last window needs them.
        padded: np.ndarray = np.zeros(
            max(length + 2 * half, (count - 1) * self.hop + self.n_fft),
            np.float32,
        )
        np.clip(
            np.resize(waveform, length),
            -1.0,
            1.0,
            out=padded[half : half + length],
        )
        frames = _frames(padded, self.n_fft, self.hop, 0, count)
        n = np.arange(self.n_fft)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * n / self.n_fft)
        spectrum = np.fft.rfft(frames * window.astype(np.float32))
        features = np.log(np.abs(spectrum) + np.float32(1e-7))
        return np.ascontiguousarray(features.T).reshape(self.shape)

    def augment(
        self, features: np.ndarray, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Applies SpecAugment to one sample's features.

        Args:
            features: float array `(n_fft / 2 + 1, times, 1)`, without the last
                axis if `channel=False`.
            rng: `np.random.Generator`. It draws the bands. Defaults to a new
                one.

        Returns:
            An array of the same shape.
        """
        flat = np.asarray(features).reshape(self.shape[:2]).T
        flat = spec_augment(flat, self.time_mask, self.freq_mask, rng)
        return np.ascontiguousarray(flat.T).reshape(self.shape)


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
