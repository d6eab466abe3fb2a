"""A cut that is checked: the narrow model gives what the masked one gave."""

from dataclasses import replace
from typing import Any

from torch import nn

from lightning_prune.graph.group import ChannelGroups, Group
from lightning_prune.loop.forward_pass import Forward
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.cut import PrunedChannels, cut_channels
from lightning_prune.surgery.masked_outputs import MaskedOutputs

_TOLERANCE = 1e-4


class _Called(nn.Module):
    """A model together with how it is called."""

    def __init__(self, model: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.model, self.run = model, forward

    def forward(self, inputs: Any) -> Any:
        return self.run(self.model, inputs)


def exact_cut(
    model: nn.Module, groups: ChannelGroups, plan: PruningPlan, example: Any, forward: Forward
) -> PrunedChannels:
    """Cut planned channels out of a masked model, and compare its eval output before and after.

    Args:
        model: The model, with the planned channels at zero.
        groups: Its channel groups.
        plan: What stays.
        example: Inputs of the model.
        forward: How the model is called with them.

    Raises:
        RuntimeError: the outputs differ by more than 1e-4 of the largest (in half precision by
            more than 8 units of rounding).
    """
    called = _Called(model, forward)
    names = ChannelGroups({n: _called(g) for n, g in groups.items()})
    before = MaskedOutputs(called, (example,), names, plan)
    pruned = cut_channels(model, groups, plan)
    found = before.difference(called)
    if not found.surgery <= max(_TOLERANCE, before.allowed):
        raise RuntimeError(
            f"the cut model differs from the masked one by {found.surgery:.3g} of the largest "
            "output: a layer treats its channels in a way that the groups do not describe; leave "
            "it out of `layers` and report the model. The last checkpoint holds the masked model."
        )
    return replace(pruned, output_difference=found.whole, mixed_by=_own(found.mixed_by))


def _called(group: Group) -> Group:
    """Name a group's mixing layers as ``_Called`` does."""
    return replace(group, mixed_by=tuple(f"model.{name}" for name in group.mixed_by))


def _own(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.removeprefix("model.") for name in names)
