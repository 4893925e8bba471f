"""Opening images, and making them one size and one number of channels."""

from __future__ import annotations

import io
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is opened, whatever the suffix: pixel formats only, nothing that runs another program."""
SUFFIXES = {
    *(".bmp", ".gif", ".jpg", ".jpeg", ".jfif", ".jp2", ".png", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".tif", ".tiff", ".webp"),
}

READ_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,  # what Pillow raises for a broken PNG
    EOFError,
    LookupError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What opening or decoding a bad image raises."""


def open_image(source: Path | bytes) -> Image.Image:
    """An image, opened but not decoded; raises READ_ERRORS."""
    if isinstance(source, Path):
        if not stat.S_ISREG(source.stat().st_mode):  # a pipe would be waited for
            raise ValueError("not a regular file")
        try:
            str(source).encode()
        except UnicodeEncodeError as error:
            raise ValueError("its name is not valid UTF-8; rename it") from error
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def decode(image: Image.Image, side: int) -> Image.Image:
    """The pixels, upright, as mode L or RGB; transparency is laid on white, 16 bits become 8.

    A JPEG much larger than `side` pixels on both sides is decoded at a half, a quarter or an eighth of its size.
    Raises: READ_ERRORS.
    """
    image.draft(None, (side, side))
    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    if image.mode in ("L", "RGB"):
        image.load()
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("pixels of more than 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is unknown")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        seen = image.convert("RGBA")
        laid = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
        return laid.convert("L" if image.mode in ("LA", "La") else "RGB")
    return image.convert("RGB")


def fit(image: Image.Image, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A decoded image as uint8 (C, H, W): scaled to cover H x W, then cropped around its center."""
    channels, height, width = shape
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), method=Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def reason(error: BaseException) -> str:
    """Why an image could not be read, in a few words without its path."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"the image is larger than {Image.MAX_IMAGE_PIXELS or 0:,} pixels"
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).split("\n")[0] or type(error).__name__
