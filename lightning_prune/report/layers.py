"""The report's rows: one per layer whose channels were chosen."""

from collections.abc import Sequence

from torch import nn

from lightning_prune.graph.channel_rows import weight_rows
from lightning_prune.graph.group import ChannelGroups, Member
from lightning_prune.graph.names import modules_by_name
from lightning_prune.policies.layers.widest_layers import block_of
from lightning_prune.policies.selection.sequential import GroupDecision
from lightning_prune.report.report_data import LayerRow


def active_channels(layer: nn.Module, member: Member) -> int:
    """Count the channels of a group whose rows in a layer have an absolute sum above 1e-6.

    >>> import torch
    >>> layer = nn.Linear(3, 2)
    >>> _ = nn.init.zeros_(layer.weight[0].data)
    >>> both, dims = torch.arange(2), (("weight", 0), ("bias", 0))
    >>> active_channels(layer, Member("fc", "producer", both, both, dims))
    1
    """
    alive = (weight_rows(layer, member).detach().abs().sum(1) > 1e-6).cpu()
    return len(member.channel[alive].unique())


def layer_rows(
    decisions: Sequence[GroupDecision], groups: ChannelGroups, model: nn.Module
) -> list[LayerRow]:
    """Return one row per producing layer of every decided group, in the order of the forward pass.

    Layers tied in one group have its decision; ``group`` names it. A layer that makes channels of
    several groups has a row for each.

    Args:
        decisions: What was decided, one per group.
        groups: The groups of the model as it is.
        model: The masked model, not yet cut.
    """
    modules = modules_by_name(model)
    rows: dict[tuple[str, str], LayerRow] = {}
    place = {name: number for number, name in enumerate(groups.order)}
    for decision in decisions:
        group = groups[decision.group]
        after = len(decision.keep)
        for member in group.members:
            if member.role != "producer":
                continue
            layer = member.layer
            rows[layer, group.name] = LayerRow(
                name=layer,
                block=block_of(layer, 3),
                group=decision.group,
                channels_before=decision.channels * group.bundle,
                channels_after=after * group.bundle,
                active_channels=active_channels(modules[layer], member) * group.bundle,
                pruning_ratio=1 - after / decision.channels,
                knee=decision.knee,
                bound=decision.bound,
                status=decision.status,
                reason=decision.reason,
                separability=decision.separability,
                separability_at_random=decision.separability_at_random,
                noise=decision.noise,
                count=decision.count,
            )
    return sorted(rows.values(), key=lambda row: place.get(row.name, len(place)))
