"""The report's rows: one per layer whose channels were chosen."""

from collections.abc import Sequence
from typing import Any

from lightning_prune.graph.groups import ChannelGroups
from lightning_prune.pruners.sequential import GroupDecision
from lightning_prune.pruners.widest_layers import block_of


def layer_rows(decisions: Sequence[GroupDecision], groups: ChannelGroups) -> list[dict[str, Any]]:
    """Return one row per producing layer of every decided group, in the order of the forward pass.

    Layers tied in one group share its decision; ``group`` names it.
    """
    by_layer: dict[str, dict[str, Any]] = {}
    for decision in decisions:
        for layer in groups[decision.group].producers:
            after = len(decision.keep)
            by_layer[layer] = {
                "name": layer,
                "block": block_of(layer, 3),
                "group": decision.group,
                "channels_before": decision.channels,
                "channels_after": after,
                "pruning_ratio": 1 - after / decision.channels,
                "knee": decision.knee,
                "bound": decision.bound,
                "status": decision.status,
                "reason": decision.reason,
            }
    return [by_layer[name] for name in groups.order if name in by_layer]
