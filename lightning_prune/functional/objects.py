"""The objects of one batch: where, which class, and whether the model was right."""

from typing import NamedTuple

from torch import Tensor


class ObjectSamples(NamedTuple):
    """Objects of one batch, M in number, on the device of the batch.

    Attributes:
        image: (M,) int64, index of the image within the batch.
        label: (M,) int64, class in 0..K-1.
        correct: (M,) bool, True where the model got the object right (a detector found it, a
            classifier named it).
        x: (M,) centre in [0, 1] of the image width, or None: the spatial mean is taken.
        y: (M,) centre in [0, 1] of the image height, or None: the spatial mean is taken.
        width: (M,) in [0, 1] of the image width, or None where objects have no extent.
        height: (M,) in [0, 1] of the image height, or None where objects have no extent.
    """

    image: Tensor
    label: Tensor
    correct: Tensor
    x: Tensor | None = None
    y: Tensor | None = None
    width: Tensor | None = None
    height: Tensor | None = None
