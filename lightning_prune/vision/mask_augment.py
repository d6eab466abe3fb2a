"""Show an image and its mask in a square: as they are, or varied for training."""

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from lightning_prune.annotations import Between
from lightning_prune.validation import validated
from lightning_prune.vision.mask_file import IGNORED

PAD_VALUE = 114
Degrees = Annotated[float, Between(0, 180, "+- degrees, 0 = off")]
Part = Annotated[float, Between(0, 0.9, "a range, 0 = off")]
Color = Annotated[float, Between(0, 1, "a range, 0 = off")]
Chance = Annotated[float, Between(0, 1, "a probability, 0 = off")]


class MaskView(NamedTuple):
    """An image and its mask, of one height and width.

    Attributes:
        image: (H, W, 3) uint8.
        mask: (H, W) int32, classes or IGNORED.
    """

    image: np.ndarray
    mask: np.ndarray


@validated
@dataclass(frozen=True)
class MaskAugmentation:
    """How strongly training images and their masks are varied; 0 everywhere = not at all.

    Attributes:
        scale: Magnification, uniform in 1 +- this; what sticks out is cropped, what is missing is
            padding that does not count.
        translate: Displacement, uniform in +- this fraction of the image's side.
        degrees: Rotation, uniform in +- this many degrees.
        fliplr: Probability of a left-right flip, 0-1.
        flipud: Probability of an upside-down flip, 0-1.
        brightness: Factor on the brightness, uniform in 1 +- this.
        saturation: Factor on the saturation, uniform in 1 +- this.
    """

    scale: Part = 0.0
    translate: Part = 0.0
    degrees: Degrees = 0.0
    fliplr: Chance = 0.0
    flipud: Chance = 0.0
    brightness: Color = 0.0
    saturation: Color = 0.0


def fit(view: MaskView, size: int) -> MaskView:
    """Resize so that the longer side becomes ``size`` pixels; the mask by nearest pixels."""
    height, width = view.mask.shape
    factor = size / max(height, width)
    new = max(1, round(height * factor)), max(1, round(width * factor))
    if new == (height, width):
        return view
    pixels = torch.from_numpy(np.ascontiguousarray(view.image)).permute(2, 0, 1)
    image = F.resize(pixels, list(new), antialias=True).permute(1, 2, 0).numpy()
    mask = Image.fromarray(view.mask).resize(new[::-1], Image.Resampling.NEAREST)
    return MaskView(np.ascontiguousarray(image), np.array(mask, dtype=np.int32))


def letterbox(view: MaskView, size: int) -> MaskView:
    """Scale to the longer side ``size`` and centre on a grey square; padding is IGNORED.

    >>> view = MaskView(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]], np.int32))
    >>> letterbox(view, 4).mask.tolist()
    [[-1, -1, -1, -1], [0, 0, 1, 1], [0, 0, 1, 1], [-1, -1, -1, -1]]
    """
    fitted = fit(view, size)
    height, width = fitted.mask.shape
    top, left = (size - height) // 2, (size - width) // 2
    image = np.full((size, size, 3), PAD_VALUE, dtype=np.uint8)
    mask = np.full((size, size), IGNORED, dtype=np.int32)
    image[top : top + height, left : left + width] = fitted.image
    mask[top : top + height, left : left + width] = fitted.mask
    return MaskView(image, mask)


def augment(
    view: MaskView, size: int, settings: MaskAugmentation, rng: np.random.Generator
) -> MaskView:
    """Make one training image and its mask.

    Args:
        view: The image of a file, of any size.
        size: Side of the result, in pixels.
        settings: Strength of each variation.
        rng: Source of every decision; the same generator state gives the same image.
    """
    # All are drawn in any case, so that a setting changes nothing but what it names.
    angle, zoom, shift_x, shift_y, bright, colour = rng.uniform(-1, 1, 6)
    horizontal, vertical = rng.random(2)
    fitted = fit(view, size)
    if settings.scale or settings.translate or settings.degrees:
        angle, zoom = angle * settings.degrees, 1 + zoom * settings.scale
        shift = (shift_x * settings.translate * size, shift_y * settings.translate * size)
        fitted = _warp(fitted, size, angle, zoom, shift)
    else:
        fitted = letterbox(fitted, size)
    image, mask = _varied(fitted.image, settings, bright, colour), fitted.mask
    if horizontal < settings.fliplr:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if vertical < settings.flipud:
        image, mask = image[::-1], mask[::-1]
    return MaskView(np.ascontiguousarray(image), np.ascontiguousarray(mask))


def _warp(
    view: MaskView, size: int, angle: float, zoom: float, shift: tuple[float, float]
) -> MaskView:
    """Rotate by degrees, magnify and shift by pixels, about the middle of image and square."""
    height, width = view.mask.shape
    cosine, sine = math.cos(math.radians(angle)) / zoom, math.sin(math.radians(angle)) / zoom
    x, y = size / 2 + shift[0], size / 2 + shift[1]
    # Of each pixel of the square the place in the image: the inverse rotation and magnification.
    back = (
        cosine, sine, width / 2 - cosine * x - sine * y,
        -sine, cosine, height / 2 + sine * x - cosine * y,
    )  # fmt: skip
    affine, square = Image.Transform.AFFINE, (size, size)
    image = Image.fromarray(view.image).transform(
        square, affine, back, resample=Image.Resampling.BILINEAR, fillcolor=(PAD_VALUE,) * 3
    )
    mask = Image.fromarray(view.mask).transform(
        square, affine, back, resample=Image.Resampling.NEAREST, fillcolor=IGNORED
    )
    return MaskView(np.asarray(image), np.array(mask, dtype=np.int32))


def _varied(
    image: np.ndarray, settings: MaskAugmentation, bright: float, colour: float
) -> np.ndarray:
    if not settings.brightness and not settings.saturation:
        return image
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    pixels = F.adjust_brightness(pixels, 1 + bright * settings.brightness)
    pixels = F.adjust_saturation(pixels, 1 + colour * settings.saturation)
    result: np.ndarray = pixels.permute(1, 2, 0).numpy()
    return result
