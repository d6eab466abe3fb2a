"""Groups of channels in short, to compare with those of an earlier version."""

import zlib
from collections.abc import Mapping

from lightning_prune.graph.group import Group

Described = dict[str, list[int]]


def describe(groups: Mapping[str, Group]) -> Described:
    """Return of each group, in order: channels, bundle, members, and a checksum of the members.

    The checksum is of layer, role, whether activations are read there, and the pairs of position
    and channel, in any order.
    """
    found = {}
    for name, group in groups.items():
        members = sorted(
            (
                member.layer,
                member.role,
                member.is_source,
                sorted(zip(member.index.tolist(), member.channel.tolist(), strict=True)),
            )
            for member in group.members
        )
        checksum = zlib.crc32(repr(members).encode())
        found[name] = [group.channels, group.bundle, len(members), checksum]
    return found
