"""What training images go through: mosaic, affine view, colour, flips."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from lightning_prune.annotations import Between
from lightning_prune.detection.data.affine import View, affine_matrix, warp
from lightning_prune.detection.data.letterbox import letterbox
from lightning_prune.detection.data.mosaic import mosaic
from lightning_prune.validation import validated

Degrees = Annotated[float, Between(0, 180, "+- degrees, 0 = off")]
Part = Annotated[float, Between(0, 0.9, "a range, 0 = off")]
Shear = Annotated[float, Between(0, 45, "+- degrees, 0 = off")]
Hue = Annotated[float, Between(0, 0.5, "a range, 0 = off")]
Color = Annotated[float, Between(0, 1, "a range, 0 = off")]
Chance = Annotated[float, Between(0, 1, "a probability, 0 = off")]


@validated
@dataclass(frozen=True)
class Augmentation:
    """How strongly training images are varied; 0 everywhere = not at all.

    Attributes:
        mosaic: Probability of a mosaic of four images, 0-1.
        degrees: Rotation, uniform in +- this many degrees.
        translate: Displacement, uniform in +- this fraction of the image's side.
        scale: Magnification, uniform in 1 +- this.
        shear: Shear along each axis, uniform in +- this many degrees.
        hsv_h: Shift of the hue, uniform in +- this fraction of the colour circle, at most 0.5.
        hsv_s: Factor on the saturation, uniform in 1 +- this.
        hsv_v: Factor on the brightness, uniform in 1 +- this.
        fliplr: Probability of a left-right flip, 0-1.
        flipud: Probability of an upside-down flip, 0-1.
    """

    mosaic: Chance = 0.0
    degrees: Degrees = 0.0
    translate: Part = 0.0
    scale: Part = 0.0
    shear: Shear = 0.0
    hsv_h: Hue = 0.0
    hsv_s: Color = 0.0
    hsv_v: Color = 0.0
    fliplr: Chance = 0.0
    flipud: Chance = 0.0

    @property
    def moves(self) -> bool:
        """Return whether the affine view is anything but the identity."""
        return any((self.degrees, self.translate, self.scale, self.shear))


PHOTOS = Augmentation(
    mosaic=1.0, translate=0.1, scale=0.5, hsv_h=0.015, hsv_s=0.7, hsv_v=0.4, fliplr=0.5
)
"""Of data sets of photographs, by default."""


def augment(
    load: Callable[[int], View],
    index: int,
    count: int,
    size: int,
    settings: Augmentation,
    rng: np.random.Generator,
    use_mosaic: bool = True,
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Make one training image.

    Args:
        load: Gives image i with its longer side at `size` pixels and its boxes in pixels.
        index: The image wanted.
        count: Number of images there are; the mosaic draws its three partners from them.
        size: Side of the result, in pixels.
        settings: Strength of each variation.
        rng: Source of every decision; the same generator state gives the same image.
        use_mosaic: False in the last epochs.

    Returns:
        image (3, size, size) uint8; boxes (M, 4) x1, y1, x2, y2 in pixels; labels (M,).
    """
    view = load(index)
    if use_mosaic and rng.random() < settings.mosaic:
        centre = rng.integers(size // 2, size + size // 2 + 1, 2)
        partners = rng.integers(0, count, 3)
        views = [view, *(load(int(i)) for i in partners)]
        order = rng.permutation(4)
        view = mosaic([views[i] for i in order], (int(centre[0]), int(centre[1])), size)
        view = warp(view, _draw_matrix((size, size), size, settings, rng), size)
    else:
        square = letterbox(view.image, size)
        view = view.moved(np.asarray(square.image), square.left, square.top)
        if settings.moves:
            view = warp(view, _draw_matrix((size / 2, size / 2), size, settings, rng), size)
    image = torch.from_numpy(np.array(view.image)).permute(2, 0, 1).contiguous()
    image = vary_colour(image, settings, rng)
    image, boxes = _flip(image, view.boxes, size, settings, rng)
    return image, boxes, view.labels


def vary_colour(image: Tensor, settings: Augmentation, rng: np.random.Generator) -> Tensor:
    """Vary hue, saturation and brightness of a uint8 image (3, H, W)."""
    hue, saturation, value = rng.uniform(-1, 1, 3)
    if settings.hsv_v:
        image = F.adjust_brightness(image, 1 + value * settings.hsv_v)
    if settings.hsv_s:
        image = F.adjust_saturation(image, 1 + saturation * settings.hsv_s)
    if settings.hsv_h:
        image = F.adjust_hue(image, hue * settings.hsv_h)
    return image


def _draw_matrix(
    centre: tuple[float, float], size: int, settings: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    angle, zoom, shear_x, shear_y, shift_x, shift_y = rng.uniform(-1, 1, 6)
    return affine_matrix(
        centre,
        size,
        angle=angle * settings.degrees,
        zoom=1 + zoom * settings.scale,
        shear=(shear_x * settings.shear, shear_y * settings.shear),
        shift=(shift_x * settings.translate, shift_y * settings.translate),
    )


def _flip(
    image: Tensor, boxes: np.ndarray, size: int, settings: Augmentation, rng: np.random.Generator
) -> tuple[Tensor, np.ndarray]:
    horizontal, vertical = rng.random(2)
    if horizontal < settings.fliplr:
        image = F.horizontal_flip(image)
        boxes = np.stack([size - boxes[:, 2], boxes[:, 1], size - boxes[:, 0], boxes[:, 3]], axis=1)
    if vertical < settings.flipud:
        image = F.vertical_flip(image)
        boxes = np.stack([boxes[:, 0], size - boxes[:, 3], boxes[:, 2], size - boxes[:, 1]], axis=1)
    return image, boxes
