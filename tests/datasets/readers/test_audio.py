import struct

import dataset_sounds as sounds
import numpy as np
import pytest
import soundfile
from dataset_media import write_video, write_wav

from keras_mla.datasets import audio


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3"])
def test_decode_and_resample(tmp_path, suffix):
    path = write_wav(tmp_path / f"a{suffix}", 0.5, rate=44100, channels=2)
    found = audio.decode(path, rate=16000)
    assert found.dtype == np.float32 and abs(len(found) - 8000) < 1200
    middle = found[2000:6000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(4000)))
    assert abs(spectrum.argmax() * 4 - 440) <= 4
    assert abs(np.abs(middle).max() - 0.5) < 0.02


def test_decode_is_exact_without_resampling_and_takes_parts(tmp_path):
    path = write_wav(tmp_path / "a.wav")
    raw, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_array_equal(audio.decode(path), raw)
    part = audio.decode(path, start=0.1, seconds=0.2)
    np.testing.assert_array_equal(part, raw[1600:4800])


@pytest.mark.parametrize("suffix", [".mp4", ".flv", ".avi"])
def test_decode_the_track_of_a_video(tmp_path, suffix):
    path = write_video(tmp_path / f"a{suffix}", frames=8)
    found = audio.decode(path)
    assert abs(len(found) - 32000) < 2500
    spectrum = np.abs(np.fft.rfft(found[8000:24000]))
    assert abs(spectrum.argmax() - 440) <= 1
    part = audio.decode(path, start=0.5, seconds=0.25)
    np.testing.assert_allclose(part[100:3900], found[8100:11900], atol=0.02)


def test_a_video_without_sound(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=2, sound=False)
    with pytest.raises(ValueError, match="has no audio track"):
        audio.decode(path)


def wav_header(rate=16000, channels=1, data=8, body=b"\0" * 8):
    return (
        struct.pack("<4sI4s", b"RIFF", (36 + data) % 2**32, b"WAVE")
        + struct.pack(
            "<4sIHHIIHH",
            b"fmt ",
            16,
            1,
            channels,
            rate,
            (rate * channels * 2) % 2**32,
            channels * 2,
            16,
        )
        + struct.pack("<4sI", b"data", data)
        + body
    )


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.wav", wav_header(data=2_000_000_000), "promises 2000000000 bytes"),
        ("a.wav", wav_header(rate=4_000_000), "implausible header"),
        ("a.wav", wav_header(data=0, body=b""), "holds no sound"),
        ("a.wav", b"", "Cannot decode"),
        ("a.wav", b"RIFF\0\0", "Cannot decode"),
        ("a.mp3", b"not a sound" * 99, "Cannot decode"),
        ("a.mp4", b"not a video" * 99, "Cannot open"),
    ],
)
def test_damaged_sounds(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        audio.decode(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 6, 32, 64])
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_integers_of_a_wav(tmp_path, bits, channels, extensible):
    given = np.random.default_rng(bits).uniform(-1, 1, (99, channels))
    given[:2] = [[-1.0] * channels, [1.0] * channels]
    data, truth = sounds.integers(given, bits)
    path = tmp_path / "a.wav"
    path.write_bytes(sounds.wav(data, sounds.PCM, bits, channels, extensible))
    found = audio.decode(path)
    np.testing.assert_allclose(found, truth.mean(axis=1), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("bits", [32, 64])
def test_floats_of_a_wav_may_be_beyond_one(tmp_path, bits, extensible):
    given = np.random.default_rng(0).uniform(-3, 3, (99, 3))
    given = given.astype(f"<f{bits // 8}")
    path = tmp_path / "a.wav"

    def write(values):
        data = values.tobytes()
        content = sounds.wav(data, sounds.FLOAT, bits, 3, extensible)
        path.write_bytes(content)

    write(given)
    found = audio.decode(path)
    np.testing.assert_allclose(found, given.mean(axis=1), atol=1e-6)
    assert np.abs(found).max() > 1
    for wrong in (np.nan, np.inf, *([1e300] if bits == 64 else [])):
        given[7, 1] = wrong
        write(given)
        with pytest.raises(ValueError, match="a.wav.* not numbers"):
            audio.decode(path)


@pytest.mark.parametrize("law", ["a_law", "mu_law"])
def test_companded_samples_of_a_wav(tmp_path, law):
    codes = np.arange(256, dtype=np.uint8)
    path = tmp_path / "a.wav"
    code = getattr(sounds, law.upper())
    path.write_bytes(sounds.wav(codes.tobytes(), code, 8))
    found = audio.decode(path)
    np.testing.assert_allclose(found, getattr(sounds, law)(codes), atol=1e-7)


def test_other_containers(tmp_path):
    given = np.random.default_rng(0).uniform(-1, 1, (99, 2))
    data, truth = sounds.integers(given, 24)
    path = tmp_path / "a.wav"
    path.write_bytes(sounds.rf64(data, 24, 2))
    found = audio.decode(path)
    np.testing.assert_allclose(found, truth.mean(axis=1), atol=1e-7)
    big_endian = np.frombuffer(data, np.uint8).reshape(-1, 3)[:, ::-1]
    path = tmp_path / "a.AIFF"
    path.write_bytes(sounds.aiff(big_endian.tobytes(), 24, 2))
    np.testing.assert_array_equal(audio.decode(path), found)
    # Nobody writes these by hand: soundfile writes what it reads.
    for name, kind in (("a.w64", "W64"), ("a.flac", "FLAC"), ("a.caf", "CAF")):
        path = tmp_path / name
        soundfile.write(path, truth, 16000, format=kind, subtype="PCM_24")
        np.testing.assert_allclose(audio.decode(path), found, atol=2e-7)


def test_too_many_channels(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(sounds.wav(bytes(650), sounds.PCM, 16, 65))
    with pytest.raises(ValueError, match="a.wav' has 65 channels"):
        audio.decode(path)


def test_truncated_wav_and_flac(tmp_path):
    for name in ("a.wav", "a.flac"):
        path = write_wav(tmp_path / name)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match="truncated|Cannot decode"):
            audio.decode(path)


def test_missing_long_and_not_finite_sounds(tmp_path):
    with pytest.raises(ValueError, match="Cannot decode"):
        audio.decode(tmp_path / "none.wav")
    path = write_wav(tmp_path / "a.wav")
    with pytest.raises(ValueError, match="longer than 0.1 s"):
        audio.decode(path, max_seconds=0.1)
    wave = np.array([0, np.nan, 1], "float32")
    soundfile.write(tmp_path / "nan.wav", wave, 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match="not numbers"):
        audio.decode(tmp_path / "nan.wav")
