"""A cut that is checked: the narrow model gives what the masked one gave."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.loop.forward_pass import Forward
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.compare import eval_outputs, largest_difference
from lightning_prune.surgery.cut import PrunedChannels, cut_channels

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
    before = eval_outputs(called, (example,))
    pruned = cut_channels(model, groups, plan)
    difference = largest_difference(before, eval_outputs(called, (example,)))
    if not difference <= _allowed(before):
        raise RuntimeError(
            f"the cut model differs from the masked one by {difference:.3g} of the largest output: "
            "a layer treats its channels in a way that the groups do not describe; leave it out of "
            "`layers` and report the model. The last checkpoint holds the masked model."
        )
    return pruned


def _allowed(outputs: list[Tensor]) -> float:
    kinds = {output.dtype for output in outputs if output.is_floating_point()}
    return max([_TOLERANCE, *(8 * torch.finfo(kind).eps for kind in kinds)])
