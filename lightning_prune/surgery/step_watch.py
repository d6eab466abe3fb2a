"""Acts after the step of any optimizer: a plain loop names none."""

import weakref
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook


class StepWatch:
    """Calls a bound method after each step of any ``torch.optim`` optimizer of the process.

    It does not keep the method's owner alive, and ends with it.

    Args:
        after_step: Bound method, called with the optimizer.

    >>> import torch
    >>> class Counter:
    ...     steps = 0
    ...     def count(self, optimizer):
    ...         self.steps += 1
    >>> counter = Counter()
    >>> watch = StepWatch(counter.count)
    >>> torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0).step()
    >>> counter.steps
    1
    """

    def __init__(self, after_step: Callable[[Optimizer], None]) -> None:
        method = weakref.WeakMethod(after_step)

        def hook(optimizer: Optimizer, *_: Any) -> None:
            call = method()
            if call is not None:
                call(optimizer)

        handle = register_optimizer_step_post_hook(hook)
        weakref.finalize(after_step.__self__, handle.remove)  # type: ignore[attr-defined]
