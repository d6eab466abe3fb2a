"""Replaces custom layers in a traced group by the layers and tensors that they are made of."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from lightning_prune.graph.custom_layer import CustomLayer
from lightning_prune.graph.group import Group, Member


def expand_group(group: Group, blocks: Mapping[str, CustomLayer]) -> tuple[Group, list[str]]:
    """Replace the custom layers of a group, which was traced with their proxies.

    Args:
        group: Members of it may be proxies.
        blocks: Custom layers by their names.

    Returns:
        The group with the members of the custom layers, its bundle, step and mixing layers set;
        and the reasons against pruning it.
    """
    members: list[Member] = []
    reasons: list[str] = []
    mixed: list[str] = []
    bundle = step = 1
    for member in group.members:
        block = blocks.get(member.layer)
        if block is None:
            members.append(member)
            continue
        parts = block.channel_members(member.role)
        if isinstance(parts, str):
            reasons.append(f"{member.layer}: {parts}")
            continue
        members += [_placed(part, member, group.channels) for part in parts]
        mixed += [_join(member.layer, name) for name in block.mixing_layers(member.role)]
        bundle = math.lcm(bundle, block.bundle(member.role))
        step = math.lcm(step, block.width_step(member.role))
    if bundle > 1 and (group.channels % bundle or not all(map(_is_straight, group.members))):
        reasons.append(
            f"its channels go together in bundles of {bundle}, and other layers hold them in "
            "another order"
        )
        bundle = 1
    channels = group.channels // bundle
    if bundle > 1:
        members = [_bundled(member, channels) for member in members]
    return (
        replace(
            group,
            channels=channels,
            members=tuple(members),
            bundle=bundle,
            step=step // math.gcd(step, bundle),
            mixed_by=tuple(dict.fromkeys(mixed)),
        ),
        reasons,
    )


def _join(block: str, inner: str) -> str:
    return f"{block}.{inner}" if inner else block


def _placed(part: Member, proxy: Member, channels: int) -> Member:
    """Return a part of a custom layer in terms of the group's channels."""
    size = max(channels, int(proxy.index.max()) + 1, int(part.channel.max()) + 1)
    group_channel = torch.full((size,), -1)
    group_channel[proxy.index] = proxy.channel
    found = group_channel[part.channel]
    known = found >= 0
    return replace(
        part,
        layer=_join(proxy.layer, part.layer),
        index=part.index[known],
        channel=found[known],
    )


def _is_straight(member: Member) -> bool:
    """Return whether a layer holds the channels once, in the order of the group."""
    return torch.equal(member.index - member.index.min(), member.channel)


def _bundled(member: Member, channels: int) -> Member:
    pairs = torch.stack([member.index, member.channel % channels]).unique(dim=1)
    return replace(member, index=pairs[0], channel=pairs[1])
