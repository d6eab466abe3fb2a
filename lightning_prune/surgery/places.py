"""At which places of a layer's output its inputs are read."""

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_IMAGE = 2
_ROWS = 16384
_FEWEST, _MOST = 16, 256


class Places:
    """Draws places of outputs, the same ones for a layer and a batch whenever they are asked for.

    Where a map says how much depends on each part of an image, most places are drawn in proportion
    to it: the background of photographs would drown what a detector finds.

    Args:
        number: Places of each image.
        seed: Of the draws.
        maps: For each batch (B, h, w), not negative, resized to the output of every layer with two
            spatial dimensions; None for a batch, or no maps: every place is equally likely.
        focus: Fraction of the places drawn from the maps, in [0, 1].

    Attributes:
        batch: Which batch is being read, where batches follow one another.

    >>> lit = torch.zeros(1, 4, 4)
    >>> lit[0, 1, 2] = 1.0
    >>> Places(3, seed=0, maps=[lit], focus=1.0).draw("conv", 0, 1, (4, 4)).tolist()
    [[6, 6, 6]]
    >>> Places(9, seed=0).draw("conv", 0, 1, (2, 2)).tolist()  # there are no more
    [[0, 1, 2, 3]]
    """

    def __init__(
        self,
        number: int = 64,
        seed: int = 0,
        maps: Sequence[Tensor | None] = (),
        focus: float = 0.7,
    ) -> None:
        self.number, self.seed, self.maps, self.focus = number, seed, maps, focus
        self.batch = 0

    def draw(self, layer: str, batch: int, images: int, sizes: tuple[int, ...]) -> Tensor:
        """Return (images, P) int64: places numbered row by row.

        Args:
            layer: Name of the layer.
            batch: Which batch.
            images: Images in it.
            sizes: Places along each dimension of the output.
        """
        total = 1
        for size in sizes:
            total *= size
        if total <= self.number:
            return torch.arange(total).expand(images, -1)
        random = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}/{layer}/{batch}".encode()))
        chosen = torch.randint(total, (images, self.number), generator=random)
        lit = self.maps[batch] if batch < len(self.maps) else None
        if lit is None or len(sizes) != _IMAGE or len(lit) != images:
            return chosen
        wide = lit.detach().float().cpu()[:, None]
        if sizes[0] > wide.shape[2]:
            wide = F.interpolate(wide, list(sizes), mode="bilinear")
        weights = (
            F.adaptive_avg_pool2d(wide, (sizes[0], sizes[1])).flatten(1).clamp(min=0).nan_to_num()
        )
        known = weights.sum(1) > 0
        focused = round(self.focus * self.number)
        if focused and bool(known.any()):
            drawn = torch.multinomial(weights[known], focused, replacement=True, generator=random)
            chosen[known, :focused] = drawn
        return chosen


def places_for(images: int, seed: int = 0, maps: Sequence[Tensor | None] = ()) -> Places:
    """Return as many places an image as least squares need of so many: 16 to 256.

    >>> places_for(128).number, places_for(4).number
    (128, 256)
    """
    return Places(min(_MOST, max(_FEWEST, _ROWS // max(1, images))), seed, maps)
