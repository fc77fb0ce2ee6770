"""Images: decoding, resizing, random crops, flips and normalisation."""

import dataclasses
import functools
import io
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_mla.datasets import extras
from keras_mla.datasets.readers.arrays import aligned, is_tensor

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "CLIP",
    "CLIP_MEAN",
    "CLIP_STD",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ImageSettings",
    "M3AE",
    "RESNET",
    "decode",
    "hub_settings",
    "open_image",
    "random_box",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Formats without a scripting language or an outside program behind them. TIFF
# is left out: libtiff has let damaged files write into memory time and again,
# and nobody but the user knows the range of a microscope's 16 bits.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
_MAX_SIDE = 65_535  # JPEG's own limit.
_ORIENTATION = 0x0112  # Tag of EXIF.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def decode(
    source: str | os.PathLike | bytes, max_pixels: int = 50_000_000
) -> np.ndarray:
    """Decodes a JPEG, PNG, GIF, BMP or WebP image with Pillow.

    The picture is as a browser shows it on a white page: EXIF's orientation is
    applied, and transparency shows white. The whole range of 16 bits becomes
    8 bits. CMYK becomes RGB without a colour profile. An animation gives its
    first picture. Version 0.1.0 ignored the orientation, took the colours that
    transparent pixels hide, and made 16-bit greys above 255 white; every
    other picture is as it was.

    Args:
        source: str, path or bytes. A file, or its content.
        max_pixels: int. A larger image is refused before it is decoded.
            Defaults to 50 million.

    Returns:
        uint8 array `(height, width, 3)`, RGB.

    Raises:
        ValueError: If `source` is no such image, or the image is damaged or
            truncated, has more than `max_pixels` pixels or a side of more than
            65,535. The message names the file.
        ImportError: If Pillow is not installed.

    Example:
    >>> keras.utils.save_img("a.jpg", np.zeros((40, 60, 3)))
    >>> keras_mla.datasets.image.decode("a.jpg").shape
    (40, 60, 3)
    """
    return np.asarray(open_image(source, max_pixels))


def open_image(
    source: str | os.PathLike | bytes, max_pixels: int = 50_000_000
) -> "Image.Image":
    """Decodes an image as `decode` does, into an RGB `PIL.Image.Image`.

    Args:
        source: str, path or bytes. A file, or its content.
        max_pixels: int. A larger image is refused before it is decoded.
            Defaults to 50 million.

    Returns:
        `PIL.Image.Image` of the mode `"RGB"`.

    Raises:
        ValueError: If `source` is no such image, or the image is damaged or
            truncated, has more than `max_pixels` pixels or a side of more than
            65,535. The message names the file.
        ImportError: If Pillow is not installed.
    """
    Image = extras.need("PIL.Image", "decode pictures")
    name = "<bytes>" if isinstance(source, bytes) else repr(os.fspath(source))
    file: Any = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ValueError(
                    f"{width} x {height} pixels are more than "
                    f"max_pixels={max_pixels}"
                )
            if max(width, height) > _MAX_SIDE:
                raise ValueError(
                    f"{width} x {height} pixels: a side is longer than "
                    f"{_MAX_SIDE}"
                )
            image.load()
            # EXIF may stand behind the pixels.
            turn = _UPRIGHT.get(_orientation(image))
            result = _to_rgb(image)
            if turn is None:
                return result
            return result.transpose(Image.Transpose[turn])
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"Cannot decode the image {name}: it is none of "
            f"{', '.join(_FORMATS)}."
        ) from error
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        EOFError,
        SyntaxError,
        MemoryError,
        OverflowError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise ValueError(f"Cannot decode the image {name}: {error}") from error


def _orientation(image: "Image.Image") -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Broken EXIF is common, and the pixels are fine.
        return 1


def _to_rgb(image: "Image.Image") -> "Image.Image":
    """Converts a picture of any mode, as `decode` says."""
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image  # `convert` would copy what most pictures are.
    mask = None
    if image.mode == "F":
        raise ValueError("its numbers are floats of an unknown range")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("its integers have more than 16 bits")
        hidden = image.info.get("transparency")
        if isinstance(hidden, int):
            mask = Image.fromarray(values != hidden)
        image = Image.fromarray(_eight_bits()[values])
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        mask = image.getchannel("A")
    if mask is None:
        return image.convert("RGB")
    page = Image.new("RGB", image.size, "white")
    page.paste(image.convert("RGB"), mask=mask)
    return page


@functools.lru_cache
def _eight_bits() -> np.ndarray:
    """Returns the 8 bits of each number of 16 bits, rounded."""
    return ((np.arange(1 << 16) + 128) // 257).astype(np.uint8)


def random_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """Draws the crop of a RandomResizedCrop.

    The crop's share of the image's area is uniform in `scale`, its aspect
    ratio log-uniform in `ratio`. If ten draws do not fit, the result is the
    largest centred crop within `ratio`.

    Args:
        height: int. The image's height in pixels.
        width: int. The image's width in pixels.
        rng: `np.random.Generator`.
        scale: pair of floats. Bounds of the share of the area. Defaults to
            `(0.08, 1.0)`.
        ratio: pair of floats. Bounds of width / height. Defaults to
            `(3 / 4, 4 / 3)`.

    Returns:
        `(left, top, right, bottom)` in pixels.

    Reference:
        Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1])))
        w = round(float(np.sqrt(area * aspect)))
        h = round(float(np.sqrt(area / aspect)))
        if 0 < w <= width and 0 < h <= height:
            left = int(rng.integers(0, width - w + 1))
            top = int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


@dataclasses.dataclass(frozen=True)
class ImageSettings:
    """Settings that bring images to an encoder's size and range.

    In training, images get a RandomResizedCrop, and half of them a horizontal
    flip. Otherwise the whole image is resized to a square (`crop=False`), or
    its shorter side is resized and the middle cut out (`crop=True`). Pillow
    resizes, with antialiasing. Values become `(pixel / 255 - mean) / std`.

    Args:
        size: int. Height and width of the result. Defaults to `224`.
        mean: tuple of 3 floats. Mean of RGB. Defaults to ImageNet's mean.
        std: tuple of 3 floats. Standard deviation of RGB. Defaults to
            ImageNet's deviation.
        interpolation: `"bilinear"` or `"bicubic"`. Defaults to `"bilinear"`.
        crop: bool. Whether to cut out the middle. Defaults to `False`.
        scale: pair of floats. Bounds of the share of the area that a training
            crop covers. Defaults to `(0.08, 1.0)`.
        flip: bool. Whether to flip in training. Defaults to `True`.

    Example:
    >>> settings = keras_mla.datasets.image.CLIP
    >>> pixels = settings.fit(np.full((300, 400, 3), 255, "uint8"))
    >>> x = settings.normalize(pixels)
    >>> x.shape, x.dtype
    ((224, 224, 3), dtype('float32'))
    """

    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"
    crop: bool = False
    scale: tuple[float, float] = (0.08, 1.0)
    flip: bool = True

    def __post_init__(self) -> None:
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(
                '`interpolation` must be "bilinear" or "bicubic". '
                f"Received: interpolation={self.interpolation!r}"
            )
        if self.size < 1:
            raise ValueError(
                f"`size` must be positive. Received: size={self.size}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns the shape of the result."""
        return (self.size, self.size, 3)

    def fit(
        self, pixels: Any, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Crops and resizes an image, or all frames of a clip alike.

        Args:
            pixels: uint8 array `(height, width, 3)` or
                `(frames, height, width, 3)`, an RGB `PIL.Image.Image`, or a
                list of arrays or images of one size.
            rng: `np.random.Generator`. If given, the crop and the flip are
                random, the same for all frames.

        Returns:
            uint8 array `(size, size, 3)` or `(frames, size, size, 3)`.
        """
        several = isinstance(pixels, list) or getattr(pixels, "ndim", 3) == 4
        frames = pixels if several else [pixels]
        first = frames[0]
        if isinstance(first, np.ndarray):
            height, width = first.shape[:2]
        else:
            width, height = first.size
        flip = False
        box: tuple[float, float, float, float] = (0, 0, width, height)
        if rng is not None:
            box = random_box(height, width, rng, self.scale)
            flip = self.flip and bool(rng.random() < 0.5)
        elif self.crop:
            side = min(height, width)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
        result = np.stack([self._resize(frame, box, flip) for frame in frames])
        return result if several else result[0]

    def _resize(
        self, frame: Any, box: tuple[float, float, float, float], flip: bool
    ) -> np.ndarray:
        Image = extras.need("PIL.Image", "resize pictures")
        method = Image.Resampling[self.interpolation.upper()]
        if isinstance(frame, np.ndarray):
            frame = Image.fromarray(frame)
        frame = frame.resize((self.size, self.size), method, box)
        if flip:  # Far faster than reversing an array of three-byte pixels.
            frame = frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(frame)

    def normalize(self, pixels: Any) -> Any:
        """Turns uint8 pixels into `(pixel / 255 - mean) / std`.

        Args:
            pixels: uint8 array or TensorFlow tensor `(..., width, 3)`.

        Returns:
            float32, of the same kind and shape.
        """
        gain = 1 / (255 * np.asarray(self.std, np.float32))
        shift = np.asarray(self.mean, np.float32) / np.asarray(
            self.std, np.float32
        )
        # Whole rows at a time: an axis of 3 is slow to broadcast over.
        if not is_tensor(pixels):
            pixels = np.asarray(pixels)
            width = pixels.shape[-2]
            rows = pixels.reshape(-1, 3 * width)
            result = aligned(rows.shape)
            gain, shift = np.tile(gain, width), np.tile(shift, width)
            # As many rows at a time as the processor's cache holds.
            for start in range(0, len(rows), 256):
                part = result[start : start + 256]
                np.multiply(rows[start : start + 256], gain, out=part)
                part -= shift
            return result.reshape(pixels.shape)
        import tensorflow as tf

        width = tf.shape(pixels)[-2]
        rows = tf.cast(tf.reshape(pixels, [-1, 3 * width]), tf.float32)
        rows = rows * tf.tile(gain, [width]) - tf.tile(shift, [width])
        return tf.ensure_shape(tf.reshape(rows, tf.shape(pixels)), pixels.shape)


RESNET = ImageSettings()
"""224 x 224, ImageNet statistics."""

M3AE = ImageSettings(size=256)
"""256 x 256, ImageNet statistics."""

CLIP = ImageSettings(
    mean=CLIP_MEAN, std=CLIP_STD, interpolation="bicubic", crop=True
)
"""224 x 224 from the middle, bicubic, CLIP's statistics."""


def hub_settings(preset: str) -> ImageSettings:
    """Returns how a preset of Keras Hub expects images.

    Pillow resizes, with antialiasing, where Keras Hub resizes without.

    Args:
        preset: str. A preset's name, or a folder.

    Returns:
        `ImageSettings`.

    Raises:
        ValueError: If the preset has no image converter, or one that pads, or
            that makes pictures that are no squares.
        ImportError: If Keras Hub is not installed.

    Example:
    >>> import keras_hub, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> keras_hub.models.ViTBackbone(
    ...     (16, 16, 3), 8, 1, 2, 8, 16
    ... ).save_to_preset(folder)
    >>> keras_hub.layers.ViTImageConverter(
    ...     image_size=(16, 16), scale=1 / 255
    ... ).save_to_preset(folder)
    >>> keras_mla.datasets.image.hub_settings(folder).size
    16
    """
    hub = extras.need("keras_hub", f"read pictures as {preset!r} does")
    try:
        converter = hub.layers.ImageConverter.from_preset(str(preset))
    except Exception as error:
        raise ValueError(
            "No image converter can be loaded from this preset. Give a "
            "preset's name, which is downloaded, or a local folder that holds "
            f"one. Received: preset={preset}. Keras Hub said: {error}"
        ) from error
    height, width = converter.image_size or (224, 224)
    if height != width or converter.pad_to_aspect_ratio:
        raise ValueError(
            "A preset must read pictures as squares, without padding. "
            f"Received: preset={preset}, of {height} x {width} pixels, "
            f"pad_to_aspect_ratio={converter.pad_to_aspect_ratio}"
        )
    scale = _three(1.0 if converter.scale is None else converter.scale)
    offset = _three(0.0 if converter.offset is None else converter.offset)
    std = _three([1 / (255 * s) for s in scale])
    return ImageSettings(
        size=height,
        mean=_three([-o * s for o, s in zip(offset, std, strict=True)]),
        std=std,
        interpolation=converter.interpolation,
        crop=converter.crop_to_aspect_ratio,
    )


def _three(value: Any) -> tuple[float, float, float]:
    """Returns a number for each of red, green and blue."""
    values = list(value) if hasattr(value, "__len__") else [value] * 3
    if len(values) != 3:
        raise ValueError(
            f"Pictures have three colours. Received: {len(values)} numbers"
        )
    red, green, blue = map(float, values)
    return red, green, blue
