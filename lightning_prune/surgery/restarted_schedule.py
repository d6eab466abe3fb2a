"""The schedule that takes the place of all others when the learning rate is restarted."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class RestartedSchedule(LRScheduler):
    """Follow ``lr = rate * factor(step)`` in the groups that are there, and let others join.

    A group that joins later (a thawed backbone) starts at the learning rate that it is given, and
    changes in proportion to the others from then on; what a callback sets in between is followed.

    Args:
        optimizer: The optimizer.
        factor: Factor at the n-th optimizer step from now.
        rates: Learning rate of each group that a factor of 1 stands for; groups beyond them have
            joined later.
    """

    def __init__(
        self, optimizer: Optimizer, factor: Callable[[int], float], rates: Sequence[float]
    ) -> None:
        self.factor = factor
        groups = optimizer.param_groups
        joined = [float(group["lr"]) for group in groups[len(rates) :]]
        for group, rate in zip(groups, rates, strict=False):
            _set(group, "lr", rate)
            group["initial_lr"] = rate
            _end_momentum_cycle(group)
        super().__init__(optimizer)
        self.base_lrs: list[float | Tensor] = list(rates[: len(groups)])
        for group, rate in zip(groups[len(rates) :], joined, strict=True):
            _set(group, "lr", rate)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of every group at this step."""
        step, groups = self.last_epoch, self.optimizer.param_groups
        now = self.factor(step)
        before = self.factor(step - 1) if step > 0 else 0.0
        ratio = now / before if before else 1.0
        joined = groups[len(self.base_lrs) :]
        return [*(base * now for base in self.base_lrs), *(group["lr"] * ratio for group in joined)]

    def go_to(self, step: int) -> None:
        """Continue at a step: in another fit of the same Trainer nothing restores the position."""
        if step > 0:
            self.last_epoch = step - 1
            self._update_lr()

    def state_dict(self) -> dict[str, Any]:
        """Return the position; the factor is made from the stage's own state."""
        return {name: value for name, value in super().state_dict().items() if name != "factor"}


def initial_rates(optimizers: Sequence[Optimizer]) -> list[list[float]]:
    """Return the learning rates that each optimizer's groups started with.

    Of a one-cycle schedule, which starts at a fraction of it, the peak.
    """
    return [[_peak(group) for group in optimizer.param_groups] for optimizer in optimizers]


def _peak(group: dict[str, Any]) -> float:
    first = float(group.get("initial_lr", group["lr"]))
    return max(first, float(group.get("max_lr", first)))


def _set(group: dict[str, Any], key: str, value: float) -> None:
    if isinstance(group[key], Tensor):
        with torch.no_grad():
            group[key].fill_(value)
    else:
        group[key] = value


def _end_momentum_cycle(group: dict[str, Any]) -> None:
    """Restore the momentum with which a cycle (OneCycleLR, CyclicLR) begins and ends."""
    momentum = group.get("max_momentum")
    if momentum is None:
        return
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    elif "momentum" in group:
        group["momentum"] = momentum
