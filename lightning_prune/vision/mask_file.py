"""Read a mask file: which class every pixel has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from lightning_prune.data.images import ImageError, open_image, sixteen_bits

MASK_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff"})
"""Formats that keep every value as it is."""
IGNORED = -1
"""Of pixels that do not count, in what ``MaskReading.classes`` gives."""
_UNKNOWN = -2
_SHOWN = 5
Color = tuple[int, int, int]


@dataclass(frozen=True)
class MaskReading:
    """How the values of masks become classes.

    Attributes:
        num_classes: K, the background among them.
        ignore_index: Value of pixels that do not count, where values are classes.
        binary: Any value but 0 is class 1.
        colors: (red, green, blue) -> class, or IGNORED; empty: values are classes.
    """

    num_classes: int
    ignore_index: int = 255
    binary: bool = False
    colors: Mapping[Color, int] = field(default_factory=dict)

    def classes(self, path: Path) -> np.ndarray:
        """Return the class of every pixel of a file: (H, W) int32, IGNORED where none counts.

        Raises:
            ImageError: it cannot be read.
            MaskError: it has values that are no classes.
        """
        values = read_values(path, as_colors=bool(self.colors))
        if self.colors:
            return self._of_colors(path, values)
        if values.ndim == 3:
            raise MaskError(path, self._about_colors(values), colors=True)
        if self.binary:
            return (values > 0).astype(np.int32)
        found = values.astype(np.int32)
        found[values == self.ignore_index] = IGNORED
        wrong = np.unique(found[found >= self.num_classes])
        if len(wrong):
            raise MaskError(path, self._about_values(values, wrong))
        return found

    def _of_colors(self, path: Path, values: np.ndarray) -> np.ndarray:
        code = _codes(values)
        found = np.full(code.shape, _UNKNOWN, dtype=np.int32)
        for color, label in self.colors.items():
            found[code == _codes(np.array(color, dtype=np.uint8))] = label
        wrong = np.unique(code[found == _UNKNOWN])
        if len(wrong):
            raise MaskError(path, f"{_named(wrong)} not in `colors`", colors=True)
        return found

    def _about_colors(self, values: np.ndarray) -> str:
        return f"colours {_named(np.unique(_codes(values)))}"

    def _about_values(self, values: np.ndarray, wrong: np.ndarray) -> str:
        shown = ", ".join(map(str, wrong[:_SHOWN])) + ", ..." * (len(wrong) > _SHOWN)
        return f"{shown}, with {self.num_classes} classes (0 to {self.num_classes - 1})"


class MaskError(ValueError):
    """A mask with values that are no classes.

    Attributes:
        path: The file.
        reason: Which ones.
        colors: Whether they are colours.
    """

    def __init__(self, path: Path, reason: str, colors: bool = False) -> None:
        # all as arguments: exceptions travel between processes by their arguments
        super().__init__(path, reason, colors)
        self.path, self.reason, self.colors = path, reason, colors

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_values(path: Path, as_colors: bool = False) -> np.ndarray:
    """Return what a mask file holds.

    Grey values of 1, 8 or 16 bits, or indices of a palette: (H, W). Three colours a pixel:
    (H, W, 3), or (H, W) where all three are equal throughout. Transparency is dropped.

    Args:
        path: The file.
        as_colors: Give colours in any case, those of a palette too.

    Raises:
        ImageError: it is absent, no image, damaged, or of floating-point pixels.
    """
    with open_image(path) as image:
        image.load()
        if image.mode == "F":
            raise ImageError(path, "floating-point pixels are no classes: save 8 or 16 bits")
        if image.mode.startswith("I"):
            values = sixteen_bits(image)
        elif image.mode in ("1", "L", "LA", "P", "PA") and not as_colors:
            values = _flat(image)
        else:
            values = np.asarray(image.convert("RGB"))
    if as_colors:
        return values if values.ndim == 3 else np.repeat(_bytes(path, values), 3, axis=2)
    grey = values.ndim == 3 and (values == values[:, :, :1]).all()
    return values[:, :, 0] if grey else values


def _flat(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    values = values[:, :, 0] if values.ndim == 3 else values
    return values.astype(np.uint8)


def _bytes(path: Path, values: np.ndarray) -> np.ndarray:
    if values.max(initial=0) > 255:
        raise ImageError(path, "16 bits a pixel are no colours: leave `colors` out, or save 8 bits")
    return values.astype(np.uint8)[:, :, None]


def _codes(colors: np.ndarray) -> np.ndarray:
    red, green, blue = (colors[..., axis].astype(np.int64) for axis in range(3))
    code: np.ndarray = red << 16 | green << 8 | blue
    return code


def _named(codes: np.ndarray) -> str:
    shown = [str([int(c) >> 16, int(c) >> 8 & 255, int(c) & 255]) for c in codes[:_SHOWN]]
    return ", ".join(shown) + f" and {len(codes) - _SHOWN} more" * (len(codes) > _SHOWN)
