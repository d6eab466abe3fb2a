"""Example inputs of other sizes."""

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map


def with_batch(example_input: Any, size: int) -> Any:
    """Repeat the first sample of every tensor of an example input along its first dimension.

    Args:
        example_input: A tensor (B, ...), or a tuple or dict of such; other values stay.
        size: The new B, at least 1.

    Raises:
        ValueError: the size is below 1, or a tensor has no batch dimension.

    >>> import torch
    >>> with_batch(torch.tensor([[1, 2], [3, 4]]), 3).tolist()
    [[1, 2], [1, 2], [1, 2]]
    """
    if size < 1:
        raise ValueError(f"a batch of {size}: pass at least 1")

    def repeat(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.ndim == 0 or len(value) == 0:
            raise ValueError(
                f"an input of shape {tuple(value.shape)} has no samples: pass tensors (B, ...)"
            )
        return value[:1].repeat(size, *[1] * (value.ndim - 1))

    return tree_map(repeat, example_input)


def with_sides(example_input: Any, height: int, width: int) -> Any:
    """Return zeros for every image (B, C, H, W) of an example input, of another height and width.

    >>> import torch
    >>> with_sides(torch.zeros(1, 3, 64, 64), 32, 96).shape
    torch.Size([1, 3, 32, 96])
    """

    def resize(value: Any) -> Any:
        image = isinstance(value, Tensor) and value.ndim == 4
        return value.new_zeros(*value.shape[:2], height, width) if image else value

    return tree_map(resize, example_input)
