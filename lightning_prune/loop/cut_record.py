"""What was cut, as one line of text, and whether a model is as narrow as it says."""

import re

from torch import nn
from torch.nn.modules.conv import _ConvNd

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.layers import width_of
from lightning_prune.graph.names import modules_by_name
from lightning_prune.plan import PruningPlan


def cut_record(
    epoch: int,
    macs_fraction: float,
    mac_target: float | None,
    plan: PruningPlan,
    groups: ChannelGroups | None = None,
) -> str:
    """Return the line that records a cut.

    A group whose channels are not the outputs of its root one by one (heads) is written the other
    way round, ``2/4 of qkv``: ``assert_cut`` does not look for it.

    Args:
        epoch: When.
        macs_fraction: Fraction of the dense MACs that remains.
        mac_target: What it was to be at most; None: no target.
        plan: Which channels stayed.
        groups: The groups that were cut; None: each is named after a layer of its width.

    >>> import torch
    >>> cut_record(4, 0.493, 0.5, PruningPlan({"c1": torch.tensor([0, 2])}, {"c1": 3}))
    'epoch 4: cut to 49.3% of the dense MACs (target 50.0%); kept: c1 2/3'
    """
    aim = "" if mac_target is None else f" (target {mac_target:.1%})"
    kept = []
    for name, keep in plan.keep.items():
        part = f"{len(keep)}/{plan.channels[name]}"
        plain = groups is None or _is_layer_width(groups, name)
        kept.append(f"{name} {part}" if plain else f"{part} of {name}")
    fraction = f"{macs_fraction:.1%} of the dense MACs{aim}"
    return f"epoch {epoch}: cut to {fraction}; kept: {', '.join(kept)}"


def _is_layer_width(groups: ChannelGroups, name: str) -> bool:
    """Return whether a group's channels are the outputs of the layer that it is named after."""
    group = groups[name]
    own = [m.index for m in group.members if m.role == "producer" and m.layer == name]
    if len(own) != 1 or len(own[0]) != group.channels:
        return False
    return groups.groups_of(name) == (group,)


_KEPT = re.compile(r"(\S+) (\d+)/(\d+)")


def tells_widths(record: str) -> bool:
    """Return whether a line says which widths were kept, as that of ``cut_record`` does.

    >>> tells_widths("pruned to 60 %"), tells_widths("epoch 4: cut; kept: c1 2/3")
    (False, True)
    """
    return _KEPT.search(record) is not None


def assert_cut(model: nn.Module, record: str) -> None:
    """Check that a model has the widths of a record.

    Raises:
        RuntimeError: a layer has another.
    """
    modules = modules_by_name(model)
    for name, width, wide in _KEPT.findall(record):
        known = isinstance(modules.get(name), _ConvNd | nn.Linear)
        if known and width_of(modules[name]) != int(width):
            raise RuntimeError(
                f"this model was cut ({name} from {wide} to {width} channels, says log_str in "
                f"pruning_config.json or the loaded state), but {name} has "
                f"{width_of(modules[name])}: load the cut weights with "
                "load_pruned_state_dict(model, state_dict), or set reach_mac_target to false to "
                "prune again"
            )
