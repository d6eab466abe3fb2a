"""Fit an image of any shape into a square without distorting it."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

PAD_VALUE = 114


class Letterboxed(NamedTuple):
    """An image in its square, and where it is in it.

    Attributes:
        image: uint8, (size, size, 3) or (3, size, size), as it was given.
        left: Pixels of padding to the left of the image.
        top: Pixels of padding above the image.
        width: Width of the image inside the square, in pixels.
        height: Height of the image inside the square, in pixels.
    """

    image: np.ndarray | Tensor
    left: int
    top: int
    width: int
    height: int


def fitted_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Scale (height, width) so that the longer side becomes `size` pixels.

    >>> fitted_size(480, 640, 320)
    (240, 320)
    """
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """Resize a uint8 image (H, W, 3) so that its longer side becomes `size` pixels."""
    height, width = fitted_size(image.shape[0], image.shape[1], size)
    if (height, width) == image.shape[:2]:
        return image
    channels_first = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    resized = F.resize(channels_first, [height, width], antialias=True)
    return np.ascontiguousarray(resized.permute(1, 2, 0).numpy())


def letterbox(image: np.ndarray | Tensor, size: int, pad: int = PAD_VALUE) -> Letterboxed:
    """Scale an image to the longer side `size` and centre it on a square of colour `pad`.

    A box (cx, cy, w, h), normalised to the image, becomes
    ((left + cx * width) / size, (top + cy * height) / size, w * width / size, h * height / size).

    Args:
        image: uint8, (H, W, 3) as a NumPy array or (3, H, W) as a tensor.
        size: Side of the square, in pixels.
        pad: Grey value of the padding, 0-255.

    Raises:
        ValueError: the image is not uint8 with three channels, or a number is out of range.

    >>> square = letterbox(np.zeros((20, 40, 3), dtype=np.uint8), 32)
    >>> square.image.shape, square.left, square.top, square.width, square.height
    ((32, 32, 3), 0, 8, 32, 16)
    """
    if size < 1 or not 0 <= pad <= 255:
        raise ValueError(f"letterbox: size={size}, pad={pad}: pass size >= 1 and pad in 0-255")
    array = image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else image
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise ValueError(
            f"letterbox: got {array.dtype} of shape {tuple(image.shape)}: pass a uint8 array "
            "(height, width, 3) or a uint8 tensor (3, height, width)"
        )
    fitted = fit(array, size)
    height, width = fitted.shape[:2]
    top, left = (size - height) // 2, (size - width) // 2
    square = np.full((size, size, 3), pad, dtype=np.uint8)
    square[top : top + height, left : left + width] = fitted
    if isinstance(image, Tensor):
        out = torch.from_numpy(square).permute(2, 0, 1).contiguous()
        return Letterboxed(out, left, top, width, height)
    return Letterboxed(square, left, top, width, height)
