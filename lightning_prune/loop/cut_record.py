"""What was cut, as one line of text, and whether a model is as narrow as it says."""

import re

from torch import nn

from lightning_prune.graph.layer_kinds import width_of
from lightning_prune.graph.names import modules_by_name
from lightning_prune.plan import PruningPlan


def cut_record(
    epoch: int, macs_fraction: float, mac_target: float | None, plan: PruningPlan
) -> str:
    """Return the line that records a cut.

    Args:
        epoch: When.
        macs_fraction: Fraction of the dense MACs that remains.
        mac_target: What it was to be at most; None: no target.
        plan: Which channels stayed.

    >>> import torch
    >>> cut_record(4, 0.493, 0.5, PruningPlan({"c1": torch.tensor([0, 2])}, {"c1": 3}))
    'epoch 4: cut to 49.3% of the dense MACs (target 50.0%); kept: c1 2/3'
    """
    aim = "" if mac_target is None else f" (target {mac_target:.1%})"
    kept = ", ".join(f"{name} {len(k)}/{plan.channels[name]}" for name, k in plan.keep.items())
    return f"epoch {epoch}: cut to {macs_fraction:.1%} of the dense MACs{aim}; kept: {kept}"


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
        if name in modules and width_of(modules[name]) != int(width):
            raise RuntimeError(
                f"this model was cut ({name} from {wide} to {width} channels, says log_str in "
                f"pruning_config.json or the loaded state), but {name} has "
                f"{width_of(modules[name])}: load the cut weights with "
                "load_pruned_state_dict(model, state_dict), or set reach_mac_target to false to "
                "prune again"
            )
