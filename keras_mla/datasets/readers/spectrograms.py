"""Sound to log-mel and STFT spectrograms, and SpecAugment."""

import dataclasses
import functools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

# Mean and standard deviation of log-mel values, as published with AudioSet
# models (AST), with OGM-GE for Kinetics-Sounds, and with CAV-MAE.
AUDIOSET = (-4.2677393, 4.5689974)
KINETICS_SOUNDS = (-4.503877, 5.141276)
CAVMAE = (-5.081, 4.4849)


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
    """Computes log-mel filter bank energies of one waveform, as Kaldi does.

    The waveform loses its mean. Whole frames of 25 ms, one every 10 ms, lose
    their own mean, are pre-emphasised by 0.97 and windowed by a symmetric
    Hann window. The power spectrum over the next power of two goes through
    triangular filters, equally spaced from 20 Hz to half the rate on the
    scale `1127 ln(1 + f / 700)`. The result is `ln(max(energy, 2^-23))`.

    Args:
        waveform: float tensor `(samples,)`. A waveform shorter than one
            window is padded.
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
    spectrogram: "tf.Tensor", time_mask: int, freq_mask: int
) -> "tf.Tensor":
    """Sets one random band of times and one of frequencies to zero.

    The widths are uniform in `[0, time_mask)` and `[0, freq_mask)`, and a
    width of 0 masks nothing. tensorflow-io draws them: a seed fixes their
    order, and so the result, only if calls are sequential.

    Args:
        spectrogram: float tensor `(time, frequency)`, normalised, so that
            zero is its mean.
        time_mask: int. Bound of the number of masked times; 0 masks none.
        freq_mask: int. Bound of the number of masked frequencies.

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
        waveform: float tensor `(samples,)`.

    Returns:
        float32 tensor `(frames, mels, 1)`, without the last axis if
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
        """Returns the shape of the result."""
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
