"""What predictions need of a network."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor


class Detector(Protocol):
    """A detector in any runtime.

    Attributes:
        names: Of its classes.
        channels: Of its images, 1 or 3.
        size: Height and width of its input in pixels.
        batch: Number of images it takes at once; None: any.
        free: Whether it takes images of other sizes too.
    """

    names: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    batch: int | None
    free: bool

    def __call__(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [0, 1] to (B, 4 + classes, A) float32 on the CPU or a GPU.

        Boxes are centre x, centre y, width, height in pixels.
        """
        ...

    def running(self) -> AbstractContextManager[None]:
        """Prepare for a number of calls, and leave everything as it was."""
        ...


def default_names(count: int) -> tuple[str, ...]:
    """Return numbered names for classes without names.

    >>> default_names(2)
    ('class0', 'class1')
    """
    return tuple(f"class{index}" for index in range(count))


def class_tuple(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Return the names of all classes, made up where there are none."""
    return default_names(count) if names is None else tuple(map(str, names))
