"""Numbers of modules in the record of an architecture: which, and whether a cut sets them."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_prune.files.file_error import printable
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.names import plain_name
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.recorded_counts import COUNT_KEYS, is_count_entry, recorded_count
from lightning_prune.surgery.sizes import changed_sizes, is_sizes_entry, load_sizes, why_no_size

_COUNTS = ("groups", "num_groups", "num_heads")
_ATTRIBUTES = (*_COUNTS, "eps")
_COUNTING = (nn.GroupNorm, nn.MultiheadAttention)  # also those with layers inside
_SIZES = "sizes"
"""Key of a module in the record: its other numbers that cuts have changed, by attribute."""
_LARGEST_EPS = 1e6


def attributes_of(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Return, by module, the numbers that a cut may change, as far as shapes do not show them.

    >>> attributes_of(nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm(4)))
    {'0': {'groups': 1}, '1': {'eps': 1e-05}}
    """
    found: dict[str, dict[str, Any]] = {}
    for name, layer in module.named_modules():
        own = {
            key: getattr(layer, key)
            for key in _ATTRIBUTES
            if isinstance(getattr(layer, key, None), int | float)
        }
        is_leaf = isinstance(layer, _COUNTING) or not any(True for _ in layer.children())
        own = own if is_leaf else {}
        sizes = {key: value for key, value in changed_sizes(layer).items() if key not in own}
        own |= recorded_count(layer) | ({_SIZES: sizes} if sizes else {})
        if own:
            found[plain_name(name)] = own
    return found


def is_shown_by_shapes(groups: ChannelGroups, plan: PruningPlan) -> bool:
    """Return whether the tensors' shapes show all that a cut changes; else a file needs a record.

    Args:
        groups: The channel groups of a model.
        plan: What stays of them.

    >>> from torch import tensor
    >>> from lightning_prune.graph.group import Group, Size
    >>> heads = Group("qkv", 4, (), sizes=(Size("attention", "num_heads"),))
    >>> plan = PruningPlan({"qkv": tensor([0, 3])}, {"qkv": 4})
    >>> is_shown_by_shapes(ChannelGroups({"qkv": heads}), plan)
    False
    """
    cut = [groups[name] for name in plan.keep if len(plan.removed(name))]
    counts = groups.norms == "exact" and any(group.norms for group in cut)
    return not counts and not any(group.sizes for group in cut)


def is_count(value: Any, least: int) -> bool:
    """Return whether a value of a file is a whole number that is large enough."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_attributes(name: str, own: Mapping[str, Any]) -> None:
    """Check what a file says of one module, without looking at the module.

    Raises:
        ValueError: an attribute that no cut changes, or no value of its kind.
    """
    for key, value in own.items():
        if key == _SIZES and is_sizes_entry(value):
            continue
        if key not in (*_ATTRIBUTES, *COUNT_KEYS):
            raise ValueError(
                f"{printable(name)}.{printable(key)} is no attribute that a cut changes"
            )
        real = isinstance(value, int | float) and not isinstance(value, bool)
        fits = is_count(value, 1) if key in _COUNTS else real and 0 <= value <= _LARGEST_EPS
        if not (is_count_entry(key, value) if key in COUNT_KEYS else fits):
            raise ValueError(f"{printable(name)}.{key} is {printable(str(value))}")


def why_foreign(
    dense: Mapping[str, Mapping[str, Any]],
    layers: Mapping[str, nn.Module],
    attributes: Mapping[str, Mapping[str, Any]],
) -> str | None:
    """Return which recorded attribute no cut sets; None if each could be set by one."""
    for name, own in attributes.items():
        if name not in layers:
            continue
        for key, value in own.get(_SIZES, {}).items():
            problem = why_no_size(layers[name], key, value)
            if problem is not None:
                return f"{name}.{problem}"
        for key, value in _numbers(own).items():
            old = getattr(layers[name], key, name)  # eps may be None before a compensation
            if old is not None and not isinstance(old, int | float):
                return f"{name}.{key} is set in the file and is no number in the module"
            if key in _COUNTS and value > dense.get(name, {}).get(key, 0):
                most = dense.get(name, {}).get(key, "nothing")
                return f"{name}.{key} is {value} in the file and {most} when dense"
    return None


def set_attributes(layer: nn.Module, own: Mapping[str, Any]) -> None:
    """Set the numbers of a module to those of a file, before its tensors are resized.

    Args:
        layer: The module, dense or cut.
        own: Its entries, those of the dense module where the file has none.
    """
    load_sizes(layer, own.get(_SIZES, {}))
    for key, value in _numbers(own).items():
        if getattr(layer, key) != value:
            setattr(layer, key, value)


def _numbers(own: Mapping[str, Any]) -> dict[str, int | float]:
    """Return the entries of a module that are attributes of it."""
    return {key: value for key, value in own.items() if key not in (_SIZES, *COUNT_KEYS)}
