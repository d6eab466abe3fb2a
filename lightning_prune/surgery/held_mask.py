"""What masks share that are held while a model trains."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


class HeldMask(ABC):
    """A mask that zeroes its part of a model again after every step of some optimizers.

    >>> import torch
    >>> class Zero(HeldMask):
    ...     def apply(self):
    ...         weight.data.zero_()
    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> optimizer = torch.optim.SGD([weight], lr=0.5)
    >>> mask = Zero()
    >>> mask.hold([optimizer])
    >>> weight.grad = torch.ones(1)
    >>> optimizer.step()
    >>> weight.tolist()
    [0.0]
    >>> mask.release()
    >>> optimizer.step()
    >>> weight.tolist(), mask.holds([optimizer])
    ([-0.5], False)
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._held: list[Optimizer] = []

    @abstractmethod
    def apply(self) -> None:
        """Zero what is masked now."""

    def clear_gradients(self) -> None:
        """Zero the gradients of what is masked, where a mask has any use for that."""
        return

    def hold(self, optimizers: Iterable[Optimizer]) -> None:
        """Zero it now and after every step of these optimizers, until ``release``."""
        self.release()
        self.apply()

        def after_step(*_: Any) -> None:
            self.apply()

        self._held = list(optimizers)
        self._handles = [optimizer.register_step_post_hook(after_step) for optimizer in self._held]

    def holds(self, optimizers: Sequence[Optimizer]) -> bool:
        """Return whether exactly these optimizers are followed: rebuilt ones have no hook yet."""
        return len(optimizers) == len(self._held) and all(
            ours is theirs for ours, theirs in zip(self._held, optimizers, strict=True)
        )

    def release(self) -> None:
        """Stop holding; the zeros stay until training changes them."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._held = [], []
