"""The separability of a group's channels beside that of labels dealt out at random."""

from lightning_prune.functional.selection.chance import Chance, against_chance
from lightning_prune.graph.group import Group
from lightning_prune.observe.activations import ObjectActivations
from lightning_prune.policies.selection.clusterer import group_separability


def group_chance(group: Group, seen: ObjectActivations) -> Chance | None:
    """Compare the separability of a group's channels with that under random labels.

    Both are those of the sample of objects to which these labels were dealt out.

    Returns:
        The comparison; None where none were dealt out, or no object was matched.
    """
    if seen.moments is None:
        return None
    sampled, parts = {}, {}
    for member in group.sources:
        sampled[member.layer] = seen.sampled_of(member.layer)
        parts[member.layer] = seen.shuffled_of(member.layer)
    shuffled = [
        group_separability(group, dict(zip(parts, moments, strict=True)))
        for moments in zip(*parts.values(), strict=True)
    ]
    return against_chance(group_separability(group, sampled), shuffled)
