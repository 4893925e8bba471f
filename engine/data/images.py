"""Opening images, and making them one size and one number of channels."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import stat
import struct
import threading
from collections.abc import Iterator
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


MOST_SCANS = 100
"""Of a JPEG, which is decoded whole once for each: cameras and programs write 10 or so, and a file of 1 MB has room for
100,000, which take days."""

_LARGE = 1 << 24
_large = threading.Lock()


def open_image(source: Path | bytes) -> Image.Image:
    """An image, opened but not decoded; raises READ_ERRORS."""
    if isinstance(source, Path):
        if not stat.S_ISREG(source.stat().st_mode):  # a pipe would be waited for
            raise ValueError("not a regular file")
        try:
            str(source).encode()
        except UnicodeEncodeError as error:
            raise ValueError("its name is not valid UTF-8; rename it") from error
    with _decoders_errors():
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


@contextlib.contextmanager
def _decoders_errors() -> Iterator[None]:
    """Whatever a decoder raises about bytes that may be anything, as one of READ_ERRORS."""
    try:
        yield
    except (*READ_ERRORS, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def one_large_at_a_time(image: Image.Image) -> contextlib.AbstractContextManager[object]:
    """Held while an image is decoded and made small: one large image at a time, because each may take a gigabyte."""
    return _large if image.width * image.height > _LARGE else contextlib.nullcontext()


def _check_scans(image: Image.Image) -> None:
    """ValueError for a JPEG of very many scans. What follows 0xFF tells them apart: no pixels hold the two bytes."""
    file = getattr(image, "fp", None)
    if image.format not in ("JPEG", "MPO") or file is None:
        return
    at = file.tell()
    file.seek(0)
    scans = file.read().count(b"\xff\xda")
    file.seek(at)
    if scans > MOST_SCANS:
        raise ValueError(f"a JPEG of {scans:,} scans; allowed: {MOST_SCANS}")


def decode(image: Image.Image, side: int) -> Image.Image:
    """The pixels, upright, as mode L or RGB; transparency is laid on white, 16 bits become 8.

    A JPEG much larger than `side` pixels on both sides is decoded at a half, a quarter or an eighth of its size.
    Raises: READ_ERRORS.
    """
    with _decoders_errors():
        return _decode(image, side)


def _decode(image: Image.Image, side: int) -> Image.Image:
    _check_scans(image)
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


def _silence_libtiff() -> None:
    """libtiff prints what it finds, beside the exception that Pillow raises: the handler that does it is taken away.

    Where Pillow is linked otherwise, as on Windows, the function is not found and libtiff prints on.
    """
    with contextlib.suppress(OSError, AttributeError):
        set_handler = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)


_silence_libtiff()
