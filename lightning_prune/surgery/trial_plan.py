"""Which channels stay in a trial."""

import math
from collections.abc import Mapping, Sequence

import torch

from lightning_prune.graph.group import Group
from lightning_prune.plan import PruningPlan


def trial_plan(groups: Mapping[str, Group]) -> PruningPlan:
    """Choose the channels that stay, the same for the same groups in every trial."""
    keep, channels = {}, {}
    for number, (name, group) in enumerate(groups.items()):
        generator = torch.Generator().manual_seed(number)
        order = torch.randperm(group.channels, generator=generator)
        keep[name] = order[: trial_width(group)].sort()[0]
        channels[name] = group.channels
    return PruningPlan(keep, channels)


def trial_width(group: Group) -> int:
    """Return a width that hides nothing: near 60 %, and no divisor in common with the whole.

    Half of the channels would pass where a view divides them by a number of heads.

    >>> trial_width(Group("conv", 64, ())), trial_width(Group("norm", 64, (), step=8))
    (37, 24)
    >>> trial_width(Group("heads", 4, ())), trial_width(Group("heads", 3, ()))
    (3, 2)
    """
    steps = group.channels // group.step
    wish = max(1, int(steps * 0.6))
    while wish > 1 and (math.gcd(wish, steps) > 1 or (wish > 2 and wish % 2 == 0)):
        wish -= 1
    if wish == 1 and steps > 2:  # one channel cannot be shuffled, and divides everything
        wish = next(n for n in range(max(2, int(steps * 0.6)), steps) if math.gcd(n, steps) == 1)
    return wish * group.step


def plan_of(plan: PruningPlan, names: Sequence[str]) -> PruningPlan:
    """Return what a plan says of some groups."""
    keep = {name: plan.keep[name] for name in names}
    return PruningPlan(keep, {name: plan.channels[name] for name in names})
