"""Which groups are pruned: all, those named, or those that a rule selects."""

import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Protocol

from torch import nn

from lightning_prune.annotations import Such
from lightning_prune.graph.group import ChannelGroups


class LayerRule(Protocol):
    """A rule that selects groups, such as ``WidestLayers``."""

    def select(self, model: nn.Module, groups: ChannelGroups) -> tuple[str, ...]:
        """Return the names of the groups to prune, front to back."""


LayerChoice = Annotated[
    list[str] | LayerRule | None,
    Such(
        lambda layers: not isinstance(layers, list | tuple) or bool(layers),
        "a list of layer names or patterns such as ['backbone.*'], a rule such as WidestLayers",
        "null stands for all prunable layers",
    ),
]
"""A choice of layers, before there is a model."""


def select_groups(
    layers: Sequence[str] | LayerRule | None, model: nn.Module, groups: ChannelGroups
) -> tuple[str, ...]:
    """Return the names of the groups that a choice of layers means, front to back.

    Args:
        layers: Layer names or shell patterns, a rule, or None for every group.
        model: The live model.
        groups: Its channel groups.

    Raises:
        ValueError: nothing in the model can be pruned, or a name matches no prunable layer; the
            message says what is near.

    Warns:
        UserWarning: a pattern matches layers that cannot be pruned, too.
    """
    if not groups:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(groups.refused.items())[:3])
        raise ValueError(f"no layer of {type(model).__name__} can be pruned ({reasons})")
    if layers is not None and not isinstance(layers, Sequence):
        return layers.select(model, groups)
    try:
        chosen = groups.select(None if layers is None else list(layers))
    except KeyError as error:
        raise ValueError(f"layers: {error.args[0]}") from error
    refused = {n: why for n, why in groups.refused.items() if _matched(n, layers or ())}
    if refused:
        first, *others = (f"{name} ({why})" for name, why in refused.items())
        more = f" and {len(others)} more" if others else ""
        warnings.warn(
            f"layers={list(layers or ())} matches {len(refused)} layers that cannot be pruned and "
            f"are left out, beside {len(chosen)} groups that are pruned: {first}{more}",
            stacklevel=2,
        )
    return chosen


def _matched(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
