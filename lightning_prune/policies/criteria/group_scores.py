"""Scores of a group's channels, summed over the layers that are tied in it."""

import warnings
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_prune.functional.importance import filter_norm, norm_scale
from lightning_prune.functional.selection.moments import ClassMoments
from lightning_prune.graph.channel_rows import add_to_channels, weight_rows
from lightning_prune.graph.group import Group, Member
from lightning_prune.graph.layer_kinds import scale_of
from lightning_prune.graph.names import modules_by_name


def _to_channels(values: Tensor, member: Member, channels: int) -> Tensor:
    scores = torch.zeros(channels, dtype=torch.float64)
    return add_to_channels(scores, values.detach().double().cpu(), member)


@torch.no_grad()
def weight_norm(model: nn.Module, group: Group, p: Literal[1, 2]) -> Tensor:
    """Return the Lp norm of every channel's filter, summed over the group's producers: (C,)."""
    modules = modules_by_name(model)
    total = torch.zeros(group.channels, dtype=torch.float64)
    for member in group.members:
        if member.role == "producer":
            norms = filter_norm(weight_rows(modules[member.layer], member), p)
            total.index_add_(0, member.channel, norms.detach().double().cpu())
    return total


def norm_members(model: nn.Module, group: Group) -> list[Member]:
    """Return the group's carriers that are norms with a scale for each channel."""
    modules = modules_by_name(model)
    return [
        member
        for member in group.members
        if member.role == "carrier" and scale_of(modules[member.layer]) is not None
    ]


@torch.no_grad()
def batch_norm_scale(model: nn.Module, group: Group) -> Tensor:
    """Return |gamma| of every channel, summed over the group's batch norms: (C,)."""
    modules = modules_by_name(model)
    total = torch.zeros(group.channels, dtype=torch.float64)
    for member in norm_members(model, group):
        layer = modules[member.layer]
        gamma = layer.get_parameter(scale_of(layer) or "weight")
        total += _to_channels(norm_scale(gamma), member, group.channels)
    return total


def mean_output(group: Group, outputs: Mapping[str, Tensor]) -> Tensor:
    """Return the mean over the group's sources of what was read of their outputs: (C,).

    Channels that can only go together count as their mean.

    Raises:
        ValueError: a source was not observed.
    """
    total = torch.zeros(group.channels, dtype=torch.float64)
    count = torch.zeros(group.channels, dtype=torch.float64)
    for member in group.sources:
        if member.layer not in outputs:
            raise ValueError(
                f"no activation of layer {member.layer!r} was collected: pass Evidence.outputs, "
                "see observe.output_means.collect_outputs; ChannelMasker does"
            )
        seen = outputs[member.layer]
        total += _to_channels(seen, member, group.channels)
        count += _to_channels(torch.ones(len(seen)), member, group.channels)
    mean = total / count
    if group.channels > 1 and bool((mean == mean[0]).all()):
        warnings.warn(
            f"the activations of group {group.name!r} score all of its {group.channels} channels "
            f"alike ({float(mean[0]):.4g}): the first ones stay; choose another criterion, or "
            "other arguments of this one",
            stacklevel=2,
        )
    return mean


def mean_activation(group: Group, moments: Mapping[str, ClassMoments]) -> Tensor:
    """Return the mean |activation| over all objects, summed over the group's sources: (C,)."""
    total = torch.zeros(group.channels, dtype=torch.float64)
    for member in group.sources:
        seen = moments[member.layer]
        frequency = seen.count / seen.count.sum()
        total += _to_channels(seen.mean_abs @ frequency, member, group.channels)
    return total
