"""A cut that is checked: the narrow model gives what the masked one gave."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.cut import PrunedChannels, cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.masked_outputs import CutDifference, MaskedOutputs


@dataclass(frozen=True)
class Verification:
    """How a cut is checked.

    Attributes:
        compare: Whether the outputs of the masked and the cut model are compared.
        tolerance: Largest difference allowed, as a fraction of the largest output; in half
            precision at least 8 units of rounding.
        context: Makes the context of the forward passes, such as autocast.
        keep_masked: Whether a copy of the masked model is kept for the listeners of the cut.
    """

    compare: bool = True
    tolerance: float = 1e-4
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    keep_masked: bool = False


def _silent(_: str) -> None:
    pass


def verified_cut(
    model: nn.Module,
    groups: ChannelGroups,
    plan: PruningPlan,
    example: Any,
    verification: Verification | None = None,
    *,
    forward: Callable[[nn.Module, Any], Any] = call,
    cut: Callable[[], PrunedChannels] | None = None,
    log: Callable[[str], None] = _silent,
) -> PrunedChannels:
    """Cut planned channels out of a masked model, and compare its eval output before and after.

    Args:
        model: The model, with the planned channels at zero.
        groups: Its channel groups.
        plan: What stays.
        example: Inputs of the model; noise, as zeros would hide what the weights do.
        verification: How the cut is checked; None: by its defaults.
        forward: How the model is called with the inputs.
        cut: Cuts the model and whatever else follows it; None: the model alone.
        log: Called with a line where norms over channels make a difference of their own.

    Returns:
        What was cut, with the difference that was found.

    Raises:
        RuntimeError: a planned channel is not zero, or the outputs differ by more than allowed.

    >>> import torch
    >>> from lightning_prune.graph.trace import trace_groups
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> x = torch.rand(4, 2)
    >>> groups = trace_groups(net, x)
    >>> plan = PruningPlan({"0": torch.tensor([0, 2])}, {"0": 3})
    >>> ChannelMask(net, groups, plan).apply()
    >>> verified_cut(net, groups, plan, x).output_difference < 1e-6, net[0].out_features
    (True, 2)
    """
    checks = Verification() if verification is None else verification
    _assert_zero(model, groups, plan)
    before = None
    if checks.compare:
        with checks.context():
            before = MaskedOutputs(model, example, groups, plan, forward)
    masked = copy_module(model) if checks.keep_masked else None
    pruned = cut_channels(model, groups, plan) if cut is None else cut()
    pruned = replace(pruned, masked=masked)
    if before is None:
        return pruned
    with checks.context():
        found = before.difference(model)
    _assert_same(found, max(checks.tolerance, before.allowed))
    if found.mixed_by:
        log(
            f"{', '.join(found.mixed_by)} takes its statistics over channels of which some were "
            f"cut: the cut model differs from the masked one by {found.whole:.3g} of the largest "
            f"output, apart from that by {found.surgery:.3g}"
        )
    return replace(pruned, output_difference=found.whole, mixed_by=found.mixed_by)


def _assert_zero(model: nn.Module, groups: ChannelGroups, plan: PruningPlan) -> None:
    unmasked = ChannelMask(model, groups, plan).violations()
    if unmasked:
        raise RuntimeError(
            f"channels that are to be cut are not zero in {', '.join(unmasked[:3])}: something "
            "writes to masked weights after the optimizer's step; the cut would change the "
            "model's output"
        )


def _assert_same(found: CutDifference, allowed: float) -> None:
    if not found.surgery <= allowed:  # NaN, too
        raise RuntimeError(
            f"the cut model differs from the masked one by {found.surgery:.3g} of the largest "
            f"output (allowed {allowed:.3g}): a layer treats its channels in a way that the "
            "groups do not describe; leave it out of `layers` and report the model. The last "
            "checkpoint holds the masked model."
        )
