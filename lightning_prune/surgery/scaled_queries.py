"""Queries whose scores are divided by the root of their width: which rows, found by trying."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from lightning_prune.graph.group import Group, Scaled

Judge = Callable[[Mapping[str, Group], str], bool]

_HOPELESS = 3  # groups in a row that nothing helps


def with_scaled_queries(
    groups: Mapping[str, Group], names: Sequence[str], is_right: Judge
) -> dict[str, Group]:
    r"""Return groups whose cut is right once rows of queries are scaled.

    Attention computes :math:`q k^T / \sqrt d` with the width d that a head has. Of C channels w
    stay: :math:`\sqrt{w / C}` in the queries (or in the keys, which gives the same scores) makes
    it :math:`q k^T / \sqrt C` again, what the masked network computes.

    Args:
        groups: Groups by name.
        names: Those whose cut gives something else than the mask.
        is_right: Whether one of some groups can be cut.
    """
    found: dict[str, Group] = {}
    hopeless = 0
    for name in names:
        if not groups[name].scores or hopeless == _HOPELESS:
            continue
        for scaled in ways_to_scale(groups[name]):
            group = replace(groups[name], scaled=scaled)
            if is_right({**groups, name: group}, name):
                found[name] = group
                break
        hopeless = 0 if name in found else hopeless + 1
    return found


def ways_to_scale(group: Group) -> Iterator[tuple[Scaled, ...]]:
    """Yield the rows that may be scaled: those of queries, or of a norm that follows them."""
    yield tuple(
        Scaled(member.layer, member.dims, pairs.query.unique())
        for pairs in group.scores
        for member in group.members
        if member.role == "producer" and member.layer == pairs.queries
    )
    for member in group.members:
        if member.role == "carrier" and member.dims:
            yield (Scaled(member.layer, member.dims, member.index),)
