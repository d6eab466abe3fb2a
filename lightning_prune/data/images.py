"""Read an image file of any common kind as RGB."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from lightning_prune.files.foreign_file import describe_foreign
from lightning_prune.files.open_regular import open_regular

IMAGE_SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
"""Read where pillow-heif is installed."""
OTHER_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".dcm", ".dng", ".eps", ".exr", ".hdr", ".ico", ".jxl", ".nef",
    ".orf", ".pcx", ".pef", ".pfm", ".psd", ".raf", ".raw", ".rw2", ".sgi", ".srw", ".svg", ".xcf",
})  # fmt: skip
"""Never read: what Pillow finds in raw files is a small preview, others have no agreed range."""

_CODECS = {".avif": "avif", ".webp": "webp", ".jp2": "jpg_2000", ".j2k": "jpg_2000"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112

# what Pillow's decoders raise on damaged files, beside its own OSError
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class ImageError(ValueError):
    """An image file that cannot be decoded to its last pixel.

    Attributes:
        path: The file.
        reason: What is wrong with it, without its name.
        foreign: What it is and what to do, where it is no image but, say, a pointer of Git LFS.
    """

    def __init__(self, path: str | Path, reason: str, foreign: str | None = None) -> None:
        # all as arguments: exceptions travel between processes by their arguments
        super().__init__(path, reason, foreign)
        self.path = Path(path)
        self.reason = reason
        self.foreign = foreign

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@cache
def image_suffixes() -> frozenset[str]:
    """Return the endings of the images that can be read here, in lower case."""
    supported = set(features.get_supported())
    lacking = {suffix for suffix, codec in _CODECS.items() if codec not in supported}
    try:
        import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return IMAGE_SUFFIXES - lacking
    return (IMAGE_SUFFIXES | HEIF_SUFFIXES) - lacking


def read_image(path: str | Path, upright: bool = True) -> np.ndarray:
    """Read an image as RGB.

    Grey, palette, CMYK, transparent (alpha dropped) and 16-bit images are accepted; of 16 bits the
    upper byte is taken, whatever the file's own maximum. Of several images in a file the first is
    taken.

    Args:
        path: The file.
        upright: Turn it as its EXIF orientation says; False gives the pixels as they are stored.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ImageError: the file is absent, not an image, cut short or damaged.
    """
    with open_image(path) as opened:
        return to_rgb(opened, upright)


@contextmanager
def open_image(path: str | Path) -> Iterator[Image.Image]:
    """Open an image; what fails inside the block becomes an `ImageError` too.

    Raises:
        ImageError: the file is absent, not an image, cut short or damaged.
    """
    image_suffixes()  # registers what opens HEIF
    try:
        with open_regular(path) as file, Image.open(file) as opened:
            yield opened
    except UnidentifiedImageError as error:
        foreign = describe_foreign(path, "image")
        reason = "cannot identify image file" + (f": it is {foreign}" if foreign else "")
        raise ImageError(path, reason, foreign) from error
    except _DECODER_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(path, reason) from error


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1-8; 1 where there is none or it cannot be read."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except _DECODER_ERRORS:  # damaged EXIF data of an image that is sound
        return 1
    return found if found in _TURNS else 1


def to_rgb(image: Image.Image, upright: bool = True) -> np.ndarray:
    """Return the pixels of an opened image as RGB, as `read_image` does.

    Raises:
        ValueError: their values have no agreed range; other errors of a damaged file pass.
    """
    image.load()
    turn = _TURNS.get(orientation(image)) if upright else None
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I"):
        grey = (sixteen_bits(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range: convert the file to 8 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def sixteen_bits(image: Image.Image) -> np.ndarray:
    """Return the values of a grey image with more than 8 bits, 0-65535.

    16-bit files open as "I;16" or as "I"; Pillow's own conversion to 8 bits clips them at 255.

    Raises:
        ValueError: it has more than 16 bits.
    """
    values = np.asarray(image)
    if values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise ValueError(
            f"pixels from {values.min()} to {values.max()} have no agreed range: convert the file "
            "to 8 or 16 bits"
        )
    return values.astype(np.uint16)
