"""The oracle that users can ask of their own model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_prune.functional.widths.width import clip_width
from lightning_prune.graph.group import Attention, ChannelGroups, Norms
from lightning_prune.graph.macs import MacModel, count_macs, measure_layers
from lightning_prune.graph.prunable_table import LayerRow, layer_rows, prunable_table
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.compare import noise_like
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.masked_outputs import CutDifference, MaskedOutputs
from lightning_prune.surgery.nan_oracle import NanMismatch, NanReport, nan_oracle
from lightning_prune.surgery.scrambled_copy import scrambled_copy
from lightning_prune.surgery.trial_example import cast

__all__ = ["NanMismatch", "NanReport", "Prunability", "check_prunable", "nan_oracle"]


@dataclass(frozen=True)
class Prunability:
    """What ``check_prunable`` found.

    Attributes:
        groups: Number of groups that can be pruned.
        refused: Layers that cannot be pruned, each with the reason.
        difference: Largest |difference| of the masked and the cut model's outputs, as a fraction
            of the largest.
        macs_before: MACs of the model.
        macs_after: MACs of the cut model, as predicted and as counted: they are equal.
        mixed_by: Norms that compute other statistics from fewer channels, and so make a difference
            that no surgery avoids; what is checked against the tolerance is the rest.
        layers: A row for each layer that makes channels: pruned, or refused and why.
        nan: What the NaN oracle saw; None where it was not asked.

    ``str`` gives a table of all layers.
    """

    groups: int
    refused: dict[str, str]
    difference: float
    macs_before: int
    macs_after: int
    mixed_by: tuple[str, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    nan: NanReport | None = None

    def __str__(self) -> str:
        lines = [
            prunable_table(self.layers, self.macs_before, self.macs_after),
            f"{self.groups} groups; masked and cut model differ by {self.difference:.1e} of the "
            "largest output.",
        ]
        if self.mixed_by:
            lines.append(f"Norms over fewer channels make a difference: {', '.join(self.mixed_by)}")
        if self.nan is not None:
            lines.append(
                f"NaN in {self.nan.classes} channels reached the {self.nan.places} places that "
                "their groups claim, and no others."
            )
        return "\n".join(lines)


def check_prunable(
    model: nn.Module,
    example_input: Any,
    ratio: float = 0.5,
    seed: int = 0,
    tolerance: float = 1e-5,
    scrambled: bool = True,
    nan_classes: int = 0,
    notify: Callable[[str], None] | None = None,
    norms: Norms = "exact",
    attention: Attention = "heads",
) -> Prunability:
    """Mask and cut a copy of a model at random, and check that both give the same output.

    The result prints as a table: each layer pruned, or refused and why, and the MACs before and
    after.

    Args:
        model: Any network; it is left as it was.
        example_input: A tensor, or a tuple or dict of arguments; its shape matters, its values
            are replaced by noise.
        ratio: Fraction of every group's channels that is removed, in (0, 1).
        seed: Seed of the choice and of the noise.
        tolerance: Largest difference allowed, as a fraction of the largest output.
        scrambled: Give the copy other weights: fresh ones hide faults, such as branches that start
            at zero. False: the model's own.
        nan_classes: How many random channels are followed with NaN too (``nan_oracle``).
        notify: Called with a line on what is done next; ``print`` for example.
        norms: As in ``build_groups``; plain norms make a difference, and what is checked is the
            rest.
        attention: As in ``build_groups``.

    Raises:
        ValueError: the ratio, ``norms`` or ``attention`` is out of range, or the model cannot be
            traced.
        AssertionError: masked and cut model differ, the MACs are not those predicted, or NaN
            reaches other places than claimed.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> found = check_prunable(net, torch.zeros(1, 3, 8, 8))
    >>> found.groups, found.macs_before, found.macs_after
    (1, 8928, 4464)
    >>> print(found)
    layer  of MACs  group  channels  status
    0        87.1%  0        8 -> 4  pruned
    2        12.9%                -  refused: its channels reach the output of the model
    <BLANKLINE>
    8928 MACs before, 4464 after: 50.0% are left.
    1 groups; masked and cut model differ by 0.0e+00 of the largest output.
    """
    if not 0 < ratio < 1:
        raise ValueError(f"ratio={ratio} is outside (0, 1): pass the fraction to remove")
    say = notify or _quiet
    generator = torch.Generator().manual_seed(seed)
    net = copy_module(model)
    example = noise_like(example_input, seed)
    say("finding the groups of channels")
    groups = build_groups(net, example, notify=notify, norms=norms, attention=attention)
    plan = _random_plan(groups, ratio, generator)
    macs = MacModel.of(net, groups, example)
    nan = None
    if nan_classes:
        say(f"following {nan_classes} channels with NaN")
        nan = nan_oracle(net, example, groups, nan_classes, seed)
    if scrambled:
        net, _ = scrambled_copy(net, [example]) or (net, example)
    say(f"masking and cutting {ratio:.0%} of the channels of {len(groups)} groups")
    double, masked = copy_module(net).double(), copy_module(net)
    ChannelMask(masked, groups, plan).apply()
    # Of the masked model: how many boxes a detector finds depends on its values.
    left = MacModel.of(net, groups, example, costs=measure_layers(masked, example))
    found = _difference(net, example, groups, plan)
    if not found.surgery <= tolerance:
        found = _in_double(double, example, groups, plan) or found
    if not found.surgery <= tolerance:
        raise AssertionError(
            f"the cut model differs from the masked one by {found.surgery:.3g} (allowed "
            f"{tolerance:.3g}): some layer treats its channels in a way that the groups do not "
            "describe"
        )
    counted, predicted = count_macs(net, example), left.remaining(plan.widths())
    if counted != predicted:
        raise AssertionError(f"the cut model has {counted} MACs, predicted were {predicted}")
    if nan is not None and nan.mismatches:
        raise AssertionError(f"a channel is in other places than claimed: {nan.mismatches[0]}")
    return Prunability(
        len(groups),
        dict(groups.refused),
        found.whole,
        macs.total,
        counted,
        found.mixed_by,
        layer_rows(groups, macs, plan.widths()),
        nan,
    )


def _random_plan(groups: ChannelGroups, ratio: float, generator: torch.Generator) -> PruningPlan:
    """Remove a fraction of the channels of every group, chosen at random."""
    keep, channels = {}, {}
    for name, group in groups.items():
        order = torch.randperm(group.channels, generator=generator)
        wish = max(1, round(group.channels * (1 - ratio)))
        width = clip_width(wish, group.channels, None, group.step).width
        keep[name] = order[:width].sort()[0]
        channels[name] = group.channels
    return PruningPlan(keep, channels)


def _quiet(_: str) -> None:
    """Ignore a note."""


def _difference(
    net: nn.Module, example: Any, groups: ChannelGroups, plan: PruningPlan
) -> CutDifference:
    """Mask and cut a network; return how far its outputs move with the cut."""
    ChannelMask(net, groups, plan).apply()
    masked = MaskedOutputs(net, example, groups, plan)
    cut_channels(net, groups, plan)
    return masked.difference(net)


def _in_double(
    net: nn.Module, example: Any, groups: ChannelGroups, plan: PruningPlan
) -> CutDifference | None:
    """Compare again where rounding may be all that differs: boxes that change places, say."""
    try:
        return _difference(net, cast(example, torch.float64), groups, plan)
    except (RuntimeError, TypeError, ValueError):  # the network casts to float itself
        return None
