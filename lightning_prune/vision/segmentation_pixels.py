"""Pixels of every class as objects: what separability is computed of."""

import torch
from torch import Tensor

from lightning_prune.functional.objects import ObjectSamples

# Fractions of 1 in 32 bits: 1 / g and 1 / g^2 of the plastic number g = 1.3247...
_X, _Y = 3242174889, 2447445414


def sample_pixels(target: Tensor, most: int, ignore_index: int) -> ObjectSamples:
    """Return for every image and class some of its pixels, spread evenly over where it is.

    Which pixels depends on the mask alone: those with the smallest (x / g + y / g^2) mod 1, g the
    plastic number. Small values of it are nowhere close together in the plane.

    Args:
        target: (B, H, W) int64, classes of at least 0, or ``ignore_index``.
        most: Largest number of pixels of a class in an image.
        ignore_index: Target of pixels that are none.

    Returns:
        Samples with x and y at the pixels' centres, ``correct`` True throughout; ordered by image
        and class.

    Source: M. Roberts, 2018, The unreasonable effectiveness of quasirandom sequences.

    >>> mask = torch.tensor([[[0, 0, 0, 0], [0, 0, 1, 255]]])
    >>> found = sample_pixels(mask, 2, 255)
    >>> found.label.tolist(), found.x.tolist(), found.y.tolist()
    ([0, 0, 1], [0.125, 0.875, 0.625], [0.25, 0.25, 0.75])
    """
    height, width = target.shape[1:]
    y = torch.arange(height, device=target.device)[:, None]
    x = torch.arange(width, device=target.device)
    order = ((x * _X + y * _Y) % 2**32).flatten().argsort(stable=True)
    label, place = target.flatten(1)[:, order].sort(dim=1, stable=True)
    first = torch.searchsorted(label.contiguous(), label.contiguous())
    rank = torch.arange(label.shape[1], device=target.device) - first
    image, column = ((rank < most) & (label != ignore_index)).nonzero(as_tuple=True)
    pixel = order[place[image, column]]
    return ObjectSamples(
        image,
        label[image, column],
        torch.ones_like(image, dtype=torch.bool),
        (pixel % width + 0.5) / width,
        (pixel // width + 0.5) / height,
    )


def pixels_at(values: Tensor, samples: ObjectSamples) -> Tensor:
    """Return the values (M,) of maps (B, H, W) at the pixels of samples."""
    assert samples.x is not None
    assert samples.y is not None
    height, width = values.shape[1:]
    row, column = (samples.y * height).long(), (samples.x * width).long()
    return values[samples.image, row, column]
