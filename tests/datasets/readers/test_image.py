import io
import zlib

import numpy as np
import pytest
from dataset_media import write_jpeg
from PIL import Image

from keras_mla.datasets import image


def noise(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_decode_formats_from_file_and_bytes(tmp_path, kind):
    pixels = np.repeat(np.repeat(noise(4, 5), 8, axis=0), 8, axis=1)
    path = tmp_path / "a"
    Image.fromarray(pixels).save(path, format=kind)
    found = image.decode(path)
    assert found.shape == (32, 40, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, image.decode(path.read_bytes()))
    if kind in ("PNG", "BMP"):
        np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_decode_gives_rgb_for_every_mode(mode):
    stream = io.BytesIO()
    kind = "JPEG" if mode == "CMYK" else "PNG"
    Image.new(mode, (6, 4)).save(stream, format=kind)
    assert image.decode(stream.getvalue()).shape == (4, 6, 3)


def test_decompression_bomb(tmp_path):
    def chunk(name, data):
        crc = zlib.crc32(name + data).to_bytes(4)
        return len(data).to_bytes(4) + name + data + crc

    side = (30_000).to_bytes(4)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", side + side + b"\x08\x02\0\0\0"
    )
    bomb += chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb)
    with pytest.raises(ValueError, match="bomb.png") as error:
        image.decode(path)
    assert "pixels" in str(error.value)
    with pytest.raises(ValueError, match="max_pixels=10"):
        image.decode(write_jpeg(tmp_path / "a.jpg"), max_pixels=10)


def test_damaged_images(tmp_path):
    whole = write_jpeg(tmp_path / "a.jpg").read_bytes()
    for name, content in {
        "cut.jpg": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "text.jpg": b"not an image",
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=name):
            image.decode(path)
    with pytest.raises(ValueError, match="none.jpg"):
        image.decode(tmp_path / "none.jpg")


def test_random_box_is_inside_and_as_asked():
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(500):
        left, top, right, bottom = image.random_box(100, 160, rng)
        assert 0 <= left < right <= 160 and 0 <= top < bottom <= 100
        areas.append((right - left) * (bottom - top) / 16000)
        assert 0.7 < (right - left) / (bottom - top) < 1.4
    assert min(areas) < 0.15 and max(areas) > 0.7
    # A strip that no draw fits: the largest middle part within the ratio.
    assert image.random_box(10, 1000, rng, (1.0, 1.0)) == (493, 0, 506, 10)


def test_squash_is_pillows_resize():
    pixels = noise(60, 90)
    expected = Image.fromarray(pixels).resize((32, 32), Image.BILINEAR)
    found = image.ImageSettings(size=32).fit(pixels)
    np.testing.assert_array_equal(found, expected)


def test_centre_crop_equals_resize_then_crop():
    smooth = np.asarray(
        Image.fromarray(noise(6, 9)).resize((90, 60), Image.BICUBIC)
    )
    settings = image.ImageSettings(size=30, interpolation="bicubic", crop=True)
    whole = Image.fromarray(smooth).resize((45, 30), Image.BICUBIC)
    # An offset of 7.5 pixels: the mean of the two neighbouring crops.
    a = np.asarray(whole.crop((7, 0, 37, 30)), float)
    b = np.asarray(whole.crop((8, 0, 38, 30)), float)
    found = settings.fit(smooth).astype(float)
    assert np.abs(found - (a + b) / 2).mean() < 2


def test_flip_and_crop_are_the_same_in_all_frames():
    pixels = noise(40, 50)
    clip = np.stack([pixels] * 3)
    settings = image.ImageSettings(size=16)
    for seed in range(5):
        found = settings.fit(clip, np.random.default_rng(seed))
        assert found.shape == (3, 16, 16, 3)
        np.testing.assert_array_equal(found[0], found[2])
        single = settings.fit(pixels, np.random.default_rng(seed))
        np.testing.assert_array_equal(found[0], single)
    whole = image.ImageSettings(size=40, scale=(1.0, 1.0))
    square = noise(40, 40)
    kinds = set()
    for seed in range(200):
        found = whole.fit(square, np.random.default_rng(seed))
        if np.array_equal(found, square):
            kinds.add("as it was")
        if np.array_equal(found, square[:, ::-1]):
            kinds.add("flipped")
    assert kinds == {"flipped", "as it was"}


@pytest.mark.parametrize("settings", [image.RESNET, image.CLIP, image.M3AE])
def test_normalize(settings):
    import tensorflow as tf

    pixels = noise(4, 4)
    expected = (pixels / 255 - settings.mean) / settings.std
    for given in (pixels, tf.constant(pixels)):
        found = np.asarray(settings.normalize(given))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_wrong_settings():
    with pytest.raises(ValueError, match="interpolation='nearest'"):
        image.ImageSettings(interpolation="nearest")
    with pytest.raises(ValueError, match="size=0"):
        image.ImageSettings(size=0)
