"""Pictures without labels: those that a network is fitted to, and those that judge it."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_prune.graph.model_inputs import batch_length, model_inputs

_FIFTH = 5
_IMAGE = 3
_GIBIBYTES = 8.0


@dataclass(frozen=True)
class CalibrationSet:
    """Inputs of a network, each a batch as ``call`` takes it.

    Attributes:
        fitted: Batches that weights are fitted to.
        held_back: Batches that nothing is fitted to; empty where there are too few.
    """

    fitted: Sequence[Any]
    held_back: Sequence[Any]

    @property
    def images(self) -> int:
        """Images that weights are fitted to."""
        return sum(map(batch_length, self.fitted))

    @classmethod
    def of(cls, module: nn.Module, batches: Iterable[Any]) -> "CalibrationSet":
        """Extract the inputs from batches, and hold every fifth image back.

        Args:
            module: Whose inputs they are; they are moved to its device and its kind of floats.
            batches: What its loader gives, labels included or not.

        Raises:
            ValueError: there is no image.

        >>> pictures = CalibrationSet.of(nn.Linear(2, 1), [torch.rand(4, 2), torch.rand(6, 2)])
        >>> [len(x) for x in pictures.fitted], [len(x) for x in pictures.held_back]
        ([4, 4], [2])
        """
        like = next(module.parameters(), torch.zeros(()))
        fitted: list[Any] = []
        held_back: list[Any] = []
        seen = 0
        for batch in batches:
            inputs = _moved(model_inputs(module, batch), like)
            length = batch_length(inputs)
            if length == 0:
                raise ValueError("batches: a batch has no image; pass tensors (B, ...), B > 0")
            number = torch.arange(seen, seen + length)
            last = number % _FIFTH == _FIFTH - 1
            for which, found in ((~last, fitted), (last, held_back)):
                if bool(which.all()):
                    found.append(inputs)
                elif bool(which.any()):
                    found.append(_some(inputs, which, length))
            seen += length
        if seen == 0:
            raise ValueError("batches: there is none; pass at least one batch of inputs")
        return cls(fitted, held_back)


def _moved(inputs: Any, like: Tensor) -> Any:
    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.detach().to(like.device, like.dtype if value.is_floating_point() else None)

    return tree_map(moved, inputs)


def _some(inputs: Any, which: Tensor, length: int) -> Any:
    def some(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and len(value) == length:
            return value[which.to(value.device)]
        return value

    return tree_map(some, inputs)


def mirrored(inputs: Any) -> Any:
    """Return inputs with the last dimension of their images turned round."""

    def turned(value: Any) -> Any:
        return value.flip(-1) if isinstance(value, Tensor) and value.ndim > _IMAGE else value

    return tree_map(turned, inputs)


def first_of(inputs: Any) -> Any:
    """Return the first image of a batch, as a batch."""
    return tree_map(lambda v: v[:1] if isinstance(v, Tensor) and v.ndim else v, inputs)


def within_memory(batches: Sequence[Any], values: int) -> Sequence[Any]:
    """Return the first batches, as many as a walk can hold in memory.

    Args:
        batches: Batches of inputs.
        values: Values that the largest layer reads and makes for an image.

    Warns:
        UserWarning: there are more; how many are used.
    """
    # Of both networks; half as much again, since norms and activations make tensors of their own.
    each = 4 * 2 * 1.5 * values
    images, held = 0, 0
    for batch in batches:
        images += batch_length(batch)
        if held and images * each > _GIBIBYTES * 2**30:
            break
        held += 1
    if held < len(batches):
        warnings.warn(
            f"layers are fitted to {held} of {len(batches)} batches: with their activations more "
            f"of them would need over {_GIBIBYTES:.0f} GiB; pass smaller images, or fewer",
            stacklevel=4,
        )
    return batches[:held]
