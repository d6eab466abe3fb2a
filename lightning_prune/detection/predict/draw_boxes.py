"""Draws detections on an image."""

import colorsys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
_GOLDEN = 0.618034  # of the colour circle: neighbours in number are far apart in hue
_ELLIPSIS = "..."


def class_colour(label: int) -> Colour:
    """Return the colour of a class, the same in every image.

    >>> class_colour(0), class_colour(1)
    ((255, 56, 56), (56, 114, 255))
    """
    saturation, value = ((0.78, 1.0), (0.95, 0.8), (0.5, 0.95))[label // 8 % 3]
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_boxes(
    image: np.ndarray,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    texts: Sequence[str],
) -> Image.Image:
    """Draw boxes with a text each, in a colour for each class; lines and text fit the image.

    The first is drawn last, on top: detections come best first.

    Args:
        image: uint8 (H, W, 3), RGB; it is left as it was.
        boxes: x1, y1, x2, y2 in pixels.
        labels: The class of each.
        texts: What stands above each box, or in it where there is no room above; shortened where
            it is wider than the image.
    """
    drawn = Image.fromarray(image).copy()
    pen = ImageDraw.Draw(drawn)
    line = max(1, round((drawn.width + drawn.height) / 2 * 0.004))
    font = _font(max(9, round((drawn.width + drawn.height) / 2 * 0.022)))
    placed = [
        (_inside(box, drawn.size), class_colour(label), text)
        for box, label, text in zip(boxes, labels, texts, strict=True)
    ][::-1]
    for corners, colour, _ in placed:
        pen.rectangle(corners, outline=colour, width=line)
    for corners, colour, text in placed:  # no line crosses a text
        _write(pen, drawn.size, corners[:2], text, colour, font)
    return drawn


def _inside(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Round a box to pixels of the image."""
    width, height = size
    left, top = (min(max(round(v), 0), most - 1) for v, most in zip(box[:2], size, strict=True))
    right, bottom = (round(v) - 1 for v in box[2:])
    return left, top, min(max(right, left), width - 1), min(max(bottom, top), height - 1)


def _write(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    corner: tuple[int, int],
    text: str,
    colour: Colour,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    left, top = corner
    text = " ".join(text.split()) or " "  # one line
    while len(text) > len(_ELLIPSIS) + 1 and _extent(font, text)[0] > size[0]:
        text = text.removesuffix(_ELLIPSIS)[:-1] + _ELLIPSIS
    width, height = _extent(font, text)
    x = max(0, min(left, size[0] - width))
    y = top - height if top >= height else min(top, max(0, size[1] - height))
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    red, green, blue = colour
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    ink = (0, 0, 0) if bright else (255, 255, 255)
    pad = _pad(font)
    pen.text((x + pad, y + pad), text, fill=ink, font=font, anchor="la")


def _extent(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> tuple[int, int]:
    """Return the width of a text and the height of any, with a margin."""
    _, _, right, _ = font.getbbox(text, anchor="la")
    height = sum(font.getmetrics()) if isinstance(font, ImageFont.FreeTypeFont) else 11
    return round(right) + 2 * _pad(font), height + 2 * _pad(font)


def _pad(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return max(1, round(getattr(font, "size", 10) / 8))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return a font that knows more alphabets than Pillow's own."""
    try:
        from matplotlib import get_data_path

        return ImageFont.truetype(str(Path(get_data_path(), "fonts/ttf/DejaVuSans.ttf")), size)
    except (ImportError, OSError):
        return ImageFont.load_default(size)
