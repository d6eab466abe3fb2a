"""Background cells as a class of their own: what one-class detectors are separated from."""

import torch
from torch import Tensor

from lightning_prune.functional.objects import ObjectSamples

_TRIES = 16


def _inside(points: Tensor, image: Tensor, centres: Tensor, samples: ObjectSamples) -> Tensor:
    """Return which points are in a box of their image: points (T, 2), centres (M, 2) -> (T,)."""
    inside = image[:, None] == samples.image[None]
    for axis, extent in enumerate((samples.width, samples.height)):
        centre = centres[:, axis]
        size = torch.zeros_like(centre) if extent is None else extent
        inside &= (points[:, None, axis] - centre[None]).abs() <= size[None] / 2
    return inside.any(1)


def add_background(
    samples: ObjectSamples, background: int, generator: torch.Generator
) -> ObjectSamples:
    """Add one background point per object, in the object's image and outside all boxes of it.

    An object whose image has no free point among 16 draws gets none.

    Args:
        samples: Objects with positions.
        background: Class of the background: the number of object classes.
        generator: Source of the points; the same state gives the same points.

    Raises:
        ValueError: the samples have no positions (a classifier's).

    >>> one, half = torch.tensor([0]), torch.tensor([0.5])
    >>> objects = ObjectSamples(one, one, one == 0, half, half, half, half)
    >>> more = add_background(objects, 1, torch.Generator().manual_seed(0))
    >>> more.label.tolist(), bool(max((more.x[1] - 0.5).abs(), (more.y[1] - 0.5).abs()) > 0.25)
    ([0, 1], True)
    """
    if samples.x is None or samples.y is None:
        raise ValueError("background cells need objects with positions: not for a classifier")
    count = len(samples.label)
    if count == 0:
        return samples
    draws = torch.rand(count, _TRIES, 2, generator=generator).to(samples.x)
    owner = samples.image[:, None].expand(-1, _TRIES).reshape(-1)
    centres = torch.stack([samples.x, samples.y], 1)
    free = ~_inside(draws.reshape(-1, 2), owner, centres, samples).reshape(count, _TRIES)
    first = free.int().argmax(1)
    found = free.any(1)
    place = torch.arange(count, device=first.device)
    x, y = (draws[place, first, axis][found] for axis in (0, 1))
    image = samples.image[found]

    def extend(values: Tensor | None, more: Tensor) -> Tensor | None:
        return None if values is None else torch.cat([values, more])

    label = torch.full_like(image, background)
    zeros = torch.zeros_like(x)
    return ObjectSamples(
        torch.cat([samples.image, image]),
        torch.cat([samples.label, label]),
        torch.cat([samples.correct, torch.ones_like(image, dtype=torch.bool)]),
        torch.cat([samples.x, x]),
        torch.cat([samples.y, y]),
        extend(samples.width, zeros),
        extend(samples.height, zeros),
    )
