"""How a classifier sees an image: resized and cropped, at random for training."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from lightning_prune.annotations import Between, Such
from lightning_prune.validation import validated

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
_TRIES = 10


def _is_range(bounds: tuple[float, float]) -> bool:
    return len(bounds) == 2 and 0 < bounds[0] <= bounds[1]


CropScale = Annotated[
    tuple[float, float],
    Such(
        lambda bounds: _is_range(bounds) and bounds[1] <= 1,
        "[smallest, largest] fractions of the image's area, 0 < smallest <= largest <= 1",
    ),
]
CropRatio = Annotated[
    tuple[float, float],
    Such(_is_range, "[smallest, largest] width / height, 0 < smallest <= largest"),
]
Probability = Annotated[float, Between(0, 1, "a probability")]


@dataclass(frozen=True)
class EvaluationView:
    """How images are cut for evaluation, as timm's data configurations say it.

    Attributes:
        image_size: Side of the square, in pixels.
        crop_fraction: Side of the centre crop as a fraction of the shorter side.
        interpolation: How values between pixels are computed.
        squash: Whether the image is resized to a square regardless of its shape.
    """

    image_size: int = 224
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bicubic"
    squash: bool = False


@validated
@dataclass(frozen=True)
class RandomView:
    """How training images vary.

    Attributes:
        scale: Fractions of the image's area that crops cover.
        ratio: Width / height of crops; the logarithm is uniform.
        fliplr: Probability of a mirrored image.
        flipud: Probability of one upside down.
    """

    scale: CropScale = (0.08, 1.0)
    ratio: CropRatio = (0.75, 1.3333333)
    fliplr: Probability = 0.5
    flipud: Probability = 0.0


def evaluation_view(image: np.ndarray, view: EvaluationView) -> Tensor:
    """Resize so that the shorter side is ``image_size / crop_fraction``, and cut the centre out.

    Args:
        image: (H, W, 3) uint8.
        view: Of the result.

    Returns:
        (3, S, S) uint8.

    >>> stripes = np.repeat(np.arange(8, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(4, 0)
    >>> evaluation_view(stripes, EvaluationView(4, 1.0))[0, 0].tolist()
    [2, 3, 4, 5]
    """
    size, mode = view.image_size, InterpolationMode(view.interpolation)
    picture = Image.fromarray(image)
    if view.squash:
        picture = F.resize(picture, [size, size], interpolation=mode)
    else:
        picture = F.resize(picture, [int(size / view.crop_fraction)], interpolation=mode)
    return _tensor(F.center_crop(picture, [size, size]))


def random_view(
    image: np.ndarray,
    size: int,
    interpolation: Interpolation,
    view: RandomView,
    rng: np.random.Generator,
) -> Tensor:
    """Cut a random part out of an image, resize it, and mirror it or not.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the result, in pixels.
        interpolation: How values between pixels are computed.
        view: What varies.
        rng: Makes every random decision.

    Returns:
        (3, S, S) uint8.

    Source: Szegedy et al., 2015, Going deeper with convolutions, arXiv 1409.4842.
    """
    top, left, height, width = _crop(image.shape[0], image.shape[1], view, rng)
    picture = F.resized_crop(
        Image.fromarray(image), top, left, height, width, [size, size],
        interpolation=InterpolationMode(interpolation),
    )  # fmt: skip
    mirrored, upside_down = rng.random(2) < (view.fliplr, view.flipud)
    if mirrored:
        picture = F.horizontal_flip(picture)
    if upside_down:
        picture = F.vertical_flip(picture)
    return _tensor(picture)


def _crop(
    height: int, width: int, view: RandomView, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw top, left, height and width; the largest possible centre where nothing fits."""
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*view.scale)
        ratio = math.exp(rng.uniform(math.log(view.ratio[0]), math.log(view.ratio[1])))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return int(top), int(left), h, w
    ratio = min(max(width / height, view.ratio[0]), view.ratio[1])
    h, w = min(height, round(width / ratio)), min(width, round(height * ratio))
    h, w = max(h, 1), max(w, 1)
    return (height - h) // 2, (width - w) // 2, h, w


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
