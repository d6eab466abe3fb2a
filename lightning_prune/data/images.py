"""Read a picture file of any common kind as RGB."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
)

# what Pillow's decoders raise on damaged files, beside its own OSError
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class ImageError(ValueError):
    """A picture file that cannot be decoded to its last pixel."""


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture upright (EXIF orientation applied) as RGB.

    Grey, palette, CMYK, transparent (alpha dropped) and 16-bit pictures (upper byte) are accepted;
    of an animation the first frame is taken.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ImageError: the file is absent, not a picture, cut short or damaged.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            return _to_rgb(ImageOps.exif_transpose(opened))
    except _DECODER_ERRORS as error:
        raise ImageError(f"{path}: {error}") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        # 16-bit files open as "I;16" or "I"; Pillow's own conversion clips them at 255
        values = np.asarray(image).astype(np.int64)
        values = values >> 8 if values.max(initial=0) > 255 else values
        grey = np.clip(values, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range: convert the file to 8 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
