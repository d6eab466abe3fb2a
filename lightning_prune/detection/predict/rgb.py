"""Images in whatever form a program holds them, as RGB arrays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_prune.data.images import read_image, to_rgb

_ARRAYS = "pass RGB as a uint8 array (height, width, 3), or uint8 (height, width) for grey"
_TENSORS = "pass uint8, or floating point in [0, 1], of shape (3, height, width)"


def as_rgb(image: Any) -> np.ndarray:
    """Return an image as a uint8 array (height, width, 3), RGB, as the data modules read it.

    Args:
        image: A path, a ``PIL.Image``, a uint8 array (H, W, 3) or (H, W), or a tensor (3, H, W) or
            (1, H, W), uint8 or floating point in [0, 1].

    Raises:
        ValueError: it is of another form; an ``ImageError`` where a file cannot be read.
        TypeError: it is nothing of the kind.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        try:
            return to_rgb(image)
        except (OSError, SyntaxError) as error:  # PIL reads a file when it is asked for pixels
            raise ValueError(f"a PIL image that cannot be read: {error}") from error
    if isinstance(image, Tensor):
        return _of_tensor(image)
    if isinstance(image, np.ndarray):
        return _of_array(image)
    raise TypeError(
        f"an image of type {type(image).__name__}: pass a path, an array, a tensor or a PIL image"
    )


def each_image(images: Any) -> Iterator[Any]:
    """Go over images that are given alone, in a list, or as a tensor (B, 3, H, W).

    A folder gives the images in it; see ``find_sources``.
    """
    from lightning_prune.detection.predict.sources import find_images

    if isinstance(images, Tensor) and images.ndim == 4:
        yield from images
    elif isinstance(images, str | Path) and Path(images).is_dir():
        yield from find_images(Path(images))
    elif isinstance(images, str | Path | Image.Image | Tensor | np.ndarray):
        yield images
    elif hasattr(images, "__iter__"):
        for image in images:
            yield from each_image(image)
    else:
        yield images


def _of_array(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"an image array of {image.dtype} of shape {image.shape}: {_ARRAYS}")
    if image.ndim == 2:
        return np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3:
        first = image.ndim == 3 and image.shape[0] in (1, 3)
        hint = "; of channels first take array.transpose(1, 2, 0)" if first else ""
        hint = hint or ("; drop the fourth channel" if image.shape[2:] == (4,) else "")
        raise ValueError(f"an image array of shape {image.shape}: {_ARRAYS}{hint}")
    return np.ascontiguousarray(image)


def _of_tensor(image: Tensor) -> np.ndarray:
    if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
        raise ValueError(f"an image tensor of shape {tuple(image.shape)}: {_TENSORS}")
    image = image.detach().cpu()
    if image.is_floating_point():
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"an image tensor with values from {low:g} to {high:g}: {_TENSORS}")
        image = (image.float() * 255).round().to(torch.uint8)
    if image.dtype != torch.uint8:
        raise ValueError(f"an image tensor of {image.dtype}: {_TENSORS}")
    return np.ascontiguousarray(image.expand(3, -1, -1).permute(1, 2, 0).numpy())
