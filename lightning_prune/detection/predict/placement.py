"""Where an image is in the input of a network, and its boxes on the way back."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Placement:
    """An image inside a padded input.

    Attributes:
        left: Pixels of padding to the left of the image.
        top: Pixels of padding above the image.
        width: Width of the scaled image inside the input, in pixels.
        height: Its height.
        original_width: Width of the image before it was scaled.
        original_height: Its height.
    """

    left: int
    top: int
    width: int
    height: int
    original_width: int
    original_height: int

    def to_original(self, boxes: Tensor, clip: bool = True) -> Tensor:
        """Map boxes in pixels of the input to pixels of the original image.

        Args:
            boxes: (n, 4), x1, y1, x2, y2.
            clip: Whether to end boxes at the border of the image.

        >>> import torch
        >>> placement = Placement(0, 8, 32, 16, 64, 32)
        >>> placement.to_original(torch.tensor([[4.0, 4.0, 8.0, 12.0]])).tolist()
        [[8.0, 0.0, 16.0, 8.0]]
        """
        size = [self.original_width, self.original_height]
        offset = boxes.new_tensor([self.left, self.top]).repeat(2)
        scale = boxes.new_tensor([size[0] / self.width, size[1] / self.height]).repeat(2)
        moved = (boxes - offset) * scale
        if not clip:
            return moved
        return moved.clamp(min=0).minimum(boxes.new_tensor(size).repeat(2))
