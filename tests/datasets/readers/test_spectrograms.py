import numpy as np
import pytest
from scipy import signal

from keras_mla.datasets import audio


def reference_fbank(waveform, rate, mels):
    """The documented formula, frame by frame in float64."""
    waveform = np.asarray(waveform, np.float64)
    waveform = waveform - waveform.mean()
    window, hop = int(0.025 * rate), int(0.010 * rate)
    size = 2 ** int(np.ceil(np.log2(window)))

    def mel(f):
        return 1127.0 * np.log(1.0 + f / 700.0)

    points = np.linspace(mel(20.0), mel(rate / 2), mels + 2)
    bins = mel(np.arange(size // 2 + 1) * rate / size)
    filters = np.zeros((mels, size // 2 + 1))
    for m in range(mels):
        left, center, right = points[m : m + 3]
        for k, b in enumerate(bins):
            if left < b < right:
                up = (b - left) / (center - left)
                down = (right - b) / (right - center)
                filters[m, k] = min(up, down)
    rows = []
    for start in range(0, len(waveform) - window + 1, hop):
        frame = waveform[start : start + window]
        frame = frame - frame.mean()
        shifted = np.concatenate([frame[:1], frame[:-1]])
        frame = (frame - 0.97 * shifted) * np.hanning(window)
        power = np.abs(np.fft.rfft(frame, size)) ** 2
        rows.append(np.log(np.maximum(filters @ power, 2.0**-23)))
    return np.array(rows)


def array(waveform):
    return waveform.astype("float32")


def tensor(waveform):
    pytest.importorskip("tensorflow_io")
    import tensorflow as tf

    return tf.constant(waveform, tf.float32)


either = pytest.mark.parametrize("kind", [array, tensor])


@either
@pytest.mark.parametrize("rate", [16000, 22050])
def test_log_mel_equals_the_formula(rate, kind):
    rng = np.random.default_rng(0)
    waveform = 0.1 * rng.standard_normal(rate // 4) + 0.3
    found = audio.log_mel(kind(waveform), rate, 40)
    assert isinstance(found, np.ndarray) == (kind is array)
    found = np.asarray(found)
    expected = reference_fbank(waveform, rate, 40)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_arrays_and_tensors_give_equal_log_mels():
    rng = np.random.default_rng(0)
    for rate, mels in ((16000, 128), (22050, 128), (8000, 64)):
        waveform = 0.1 * rng.standard_normal(2 * rate)
        found = audio.log_mel(array(waveform), rate, mels)
        expected = np.asarray(audio.log_mel(tensor(waveform), rate, mels))
        np.testing.assert_allclose(found, expected, atol=1e-3)


@either
def test_log_mel_of_silence_and_of_a_short_sound(kind):
    silent = np.asarray(audio.log_mel(kind(np.zeros(4000)), mels=8))
    np.testing.assert_allclose(silent, np.log(2.0**-23), rtol=1e-6)
    assert audio.log_mel(kind(np.ones(10)), mels=8).shape == (1, 8)


def test_a_tone_falls_into_its_filter():
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    found = np.asarray(audio.log_mel(tone.astype("float32"))).mean(axis=0)
    mel = np.linspace(
        1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 8000 / 700), 130
    )[1:-1]
    centers = 700 * (np.exp(mel / 1127) - 1)
    assert abs(centers[found.argmax()] - 1000) < 25


@either
def test_fbank_pads_cuts_and_normalises(kind):
    settings = audio.Fbank(frames=30, mels=16, mean=-4.0, std=2.0)
    short = np.random.default_rng(0).standard_normal(2000).astype("float32")
    found = np.asarray(settings(kind(short)))
    assert found.shape == settings.shape == (30, 16, 1)
    raw = np.asarray(audio.log_mel(kind(short), mels=16))
    np.testing.assert_allclose(
        found[: len(raw), :, 0], (raw + 4) / 4, rtol=1e-5
    )
    np.testing.assert_allclose(found[len(raw) :], 1.0, rtol=1e-6)
    long = np.tile(short, 10)
    assert np.asarray(settings(kind(long))).shape == (30, 16, 1)


@either
def test_stft_equals_scipy(kind):
    settings = audio.STFT()
    rng = np.random.default_rng(0)
    waveform = (0.1 * rng.standard_normal(40000)).astype("float32")
    found = np.asarray(settings(kind(waveform)))
    assert found.shape == (257, 188, 1)
    tiled = np.tile(waveform, 2)[:66150]
    padded = np.pad(tiled.astype("float64"), 256)
    window = signal.get_window("hann", 512)  # periodic
    _, _, expected = signal.stft(
        padded,
        window=window,
        nperseg=512,
        noverlap=512 - 353,
        boundary=None,
        padded=False,
    )
    expected = np.log(np.abs(expected) * window.sum() + 1e-7)
    np.testing.assert_allclose(found[..., 0], expected, atol=2e-3)


@either
def test_spec_augment_masks_bands_within_the_bounds(kind):
    pytest.importorskip("tensorflow_io")
    import tensorflow as tf

    tf.random.set_seed(0)
    rng = np.random.default_rng(0)
    ones = kind(np.ones((50, 40)))
    widths = []
    for _ in range(20):
        masked = np.asarray(audio.spec_augment(ones, 10, 5, rng)) == 0
        times, freqs = masked.all(axis=1).sum(), masked.all(axis=0).sum()
        assert times < 10 and freqs < 5
        assert masked.sum() == times * 40 + freqs * 50 - times * freqs
        widths.append((times, freqs))
    assert len(set(widths)) > 5
    with pytest.raises(ValueError, match="freq_mask=200"):
        audio.Fbank(freq_mask=200)
