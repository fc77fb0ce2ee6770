import io
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from dataset_media import write_jpeg
from PIL import Image

from keras_mla.datasets import image, video


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


def chunk(name, data):
    crc = zlib.crc32(name + data).to_bytes(4)
    return len(data).to_bytes(4) + name + data + crc


def png(width, height, bits, colour, rows, *extra):
    """Returns a PNG file of unfiltered rows, with extra chunks."""
    sizes = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    lines = b"".join(b"\0" + row for row in rows)
    chunks = [chunk(b"IHDR", sizes), *extra]
    chunks += [chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def saved(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, format=kind, **options)
    return stream.getvalue()


def test_sixteen_bits():
    levels = np.array([0, 1, 128, 129, 256, 4095, 32896, 65407, 65535], ">u2")
    expected = np.round(levels.astype(float) / 257).astype(np.uint8)
    grey = png(9, 1, 16, 0, [levels.tobytes()])
    found = image.decode(grey)
    np.testing.assert_array_equal(found[0], expected[:, None].repeat(3, axis=1))
    # A hidden grey shows white.
    hidden = png(
        9, 1, 16, 0, [levels.tobytes()], chunk(b"tRNS", b"\x10\0"[::-1])
    )
    np.testing.assert_array_equal(image.decode(hidden), found)
    hidden = png(9, 1, 16, 0, [levels.tobytes()], chunk(b"tRNS", b"\x0f\xff"))
    assert image.decode(hidden)[0, 5].tolist() == [255] * 3
    assert image.decode(hidden)[0, 4].tolist() == found[0, 4].tolist()
    colours = np.random.default_rng(0).integers(0, 65536, (4, 5, 3))
    rows = [row.astype(">u2").tobytes() for row in colours]
    found = image.decode(png(5, 4, 16, 2, rows)).astype(float)
    assert np.abs(found - colours / 257).max() <= 1


def alpha_picture(mode):
    """Three pixels of grey 40: hidden, half transparent, opaque."""
    layers = [Image.new("L", (3, 2), 40)] * (len(mode) - 1)
    alpha = Image.fromarray(np.array([[0, 128, 255]] * 2, np.uint8))
    return Image.merge(mode, [*layers, alpha])


def palette_gif(**options):
    picture = Image.fromarray(np.array([[0, 1, 2]] * 2, np.uint8), "L")
    picture = picture.convert("P")
    picture.putpalette([9, 9, 9, 40, 40, 40, 7, 7, 7])
    return saved(picture, "GIF", **options)


WHITE = 255


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: saved(alpha_picture("LA")), [WHITE, 147, 40]),
        (lambda: saved(alpha_picture("RGBA")), [WHITE, 147, 40]),
        (
            lambda: saved(alpha_picture("RGBA"), "WEBP", lossless=True),
            [WHITE, 147, 40],
        ),
        (  # A palette with an opacity of each colour.
            lambda: png(
                *(3, 2, 8, 3, [b"\0\1\2"] * 2),
                chunk(b"PLTE", bytes([9, 9, 9, 40, 40, 40, 7, 7, 7])),
                chunk(b"tRNS", bytes([0, 128, 255])),
            ),
            [WHITE, 147, 7],
        ),
        (lambda: palette_gif(), [9, 40, 7]),
        (lambda: palette_gif(transparency=0), [WHITE, 40, 7]),
        (  # One colour, and only it, is hidden.
            lambda: png(
                *(3, 1, 8, 2, [bytes([1, 1, 1, 1, 1, 2, 6, 6, 6])]),
                chunk(b"tRNS", b"\0\1\0\1\0\1"),
            ),
            [WHITE, 1, 6],
        ),
        (lambda: png(3, 1, 1, 0, [b"\x40"]), [0, WHITE, 0]),
        (
            lambda: png(3, 1, 1, 0, [b"\x40"], chunk(b"tRNS", b"\0\0")),
            [WHITE] * 3,
        ),
    ],
)
def test_transparency_shows_white(make, expected):
    found = image.decode(make())
    assert np.abs(found[0, :, 0].astype(int) - expected).max() <= 1
    assert found.dtype == np.uint8 and found.shape[1:] == (3, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, kind, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :12] = 255
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder = tmp_path / "clip"
    folder.mkdir()
    picture = Image.fromarray(np.ascontiguousarray(turned))
    path = folder / f"1.{kind.lower()}"
    picture.save(path, format=kind, exif=exif, quality=95)
    found = image.decode(path)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 3
    np.testing.assert_array_equal(video.frames(folder, n=1)[0], found)


def test_broken_exif_is_no_reason_to_lose_a_picture():
    pixels = Image.new("RGB", (8, 6), (9, 99, 9))
    for exif in (
        b"Exif\0\0II*\0",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0",
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert image.decode(saved(pixels, "JPEG", exif=exif)).shape == (
                6,
                8,
                3,
            )


def test_cmyk():
    colours = [(255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255)]
    expected = [(0, 255, 255), (255, 0, 255), (255, 255, 0), (0, 0, 0)]
    for ink, colour in zip(colours, expected, strict=True):
        # Pillow writes inverted inks with Adobe's mark, as Photoshop does.
        data = saved(Image.new("CMYK", (8, 8), ink), "JPEG", quality=100)
        assert b"Adobe" in data
        assert np.abs(image.decode(data)[0, 0] - np.array(colour)).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_gives_its_first_picture(kind):
    first, *rest = (Image.new("RGB", (8, 6), (v, 0, 0)) for v in (0, 128, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(first, kind, save_all=True, append_images=rest, **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    assert (image.decode(data) == 0).all()


def test_a_side_beyond_reason(tmp_path):
    path = tmp_path / "wide.png"
    # A true one, and one whose header lies.
    for rows in ([bytes(125_000)] * 10, [b""]):
        path.write_bytes(png(1_000_000, 10, 1, 0, rows))
        tracemalloc.start()
        with pytest.raises(ValueError, match="wide.png.*1000000 x 10 pixels"):
            image.decode(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
    path.write_bytes(png(1_000_000, 1_000_000, 8, 2, [b""]))
    with pytest.raises(ValueError, match="wide.png"):
        image.decode(path)
    path.write_bytes(png(60_000, 10, 8, 0, [b""]))
    with pytest.raises(ValueError, match="wide.png.*truncated"):
        image.decode(path)


def test_what_is_not_read_is_said(tmp_path):
    path = tmp_path / "a.tif"
    Image.new("I;16", (4, 3)).save(path)
    with pytest.raises(ValueError, match="a.tif.*none of JPEG, PNG"):
        image.decode(path)
    for array, message in (
        (np.zeros((2, 2), "float32"), "floats"),
        (np.full((2, 2), 1 << 20, "int32"), "more than 16 bits"),
    ):
        with pytest.raises(ValueError, match=message):
            image._to_rgb(Image.fromarray(array))


def test_decompression_bomb(tmp_path):
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
