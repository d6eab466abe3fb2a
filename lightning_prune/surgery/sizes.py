"""Numbers in modules that follow the widths of groups: how a cut changes them."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import nn

from lightning_prune.graph.group import Group, Size
from lightning_prune.graph.names import modules_by_name
from lightning_prune.plan import PruningPlan

_DENSE = "_lightning_prune_dense_sizes"
"""Attribute of a module: what its sizes were before any cut, by attribute."""
_OF_TORCH = {
    "in_channels", "out_channels", "groups", "in_features", "out_features", "in1_features",
    "in2_features", "num_features", "num_channels", "num_groups", "num_parameters",
    "normalized_shape", "embedding_dim", "embed_dim", "kdim", "vdim", "num_heads", "head_dim",
    "input_size", "hidden_size", "proj_size", "unflattened_size",
}  # fmt: skip
"""Numbers of torch's own layers that follow a width; strides, kernels and dims do not."""
_MOST_ENTRIES = 64
_LARGEST = 2**63


class NewSize(NamedTuple):
    """An attribute of a module that a cut changes.

    Attributes:
        owner: The module.
        layer: Its name.
        attribute: Name of the attribute.
        value: What it becomes.
    """

    owner: nn.Module
    layer: str
    attribute: str
    value: Any


def sizes_after(model: nn.Module, groups: Mapping[str, Group], plan: PruningPlan) -> list[NewSize]:
    """Return the attributes that a cut changes; nothing is changed here.

    A number that several groups name becomes its product with the kept fraction of each.

    Args:
        model: The model before the cut.
        groups: Its channel groups.
        plan: What stays.

    Raises:
        ValueError: a module has no such number, or what it would become is not whole.

    >>> from lightning_prune.graph.group import Group
    >>> net = nn.Conv2d(8, 8, 1, groups=4)
    >>> groups = {"conv": Group("conv", 4, (), sizes=(Size("", "groups"), Size("", "in_channels")))}
    >>> plan = PruningPlan({"conv": torch.tensor([0, 3])}, {"conv": 4})
    >>> [(new.attribute, new.value) for new in sizes_after(net, groups, plan)]
    [('groups', 2), ('in_channels', 4)]
    """
    kept: dict[Size, Fraction] = {}
    for name, keep in plan.keep.items():
        group = groups[name]
        for size in dict.fromkeys(group.sizes):
            kept[size] = kept.get(size, Fraction(1)) * Fraction(len(keep), group.channels)
    modules = modules_by_name(model)
    found: dict[tuple[str, str], Any] = {}
    for size, fraction in kept.items():
        if size.layer not in modules:
            raise ValueError(f"no module {size.layer!r} whose {size.attribute} could be changed")
        owner, place = modules[size.layer], (size.layer, size.attribute)
        whole = found.get(place, getattr(owner, size.attribute, None))
        if fraction != 1:
            found[place] = _changed(whole, size, fraction)
    return [
        NewSize(modules[layer], layer, attribute, value)
        for (layer, attribute), value in found.items()
    ]


def set_sizes(sizes: list[NewSize]) -> None:
    """Set attributes, and keep what they were before any cut beside them."""
    for owner, _, attribute, value in sizes:
        dense = vars(owner).setdefault(_DENSE, {})
        dense.setdefault(attribute, getattr(owner, attribute))
        setattr(owner, attribute, value)


def _changed(whole: Any, size: Size, fraction: Fraction) -> Any:
    """Return an attribute with one number multiplied."""
    old = whole
    if size.place is not None and isinstance(whole, tuple | list) and size.place < len(whole):
        old = whole[size.place]
    elif size.place is not None:
        old = None
    if not isinstance(old, int) or isinstance(old, bool):
        entry = "" if size.place is None else f"[{size.place}]"
        raise ValueError(
            f"{size.layer}.{size.attribute}{entry} is {whole!r}, no number that a cut changes"
        )
    new = old * fraction
    if new.denominator != 1 or new < 1:
        raise ValueError(
            f"{size.layer}.{size.attribute} is {old} and would become {float(new):g}: keep a "
            "number of channels with which it stays whole"
        )
    if size.place is None:
        return int(new)
    values = list(whole)
    values[size.place] = int(new)
    return _like(whole, values)


def _like(old: Any, values: list[int]) -> Any:
    """Return numbers in a container of the kind that held the old ones."""
    if isinstance(old, torch.Size):
        return torch.Size(values)
    return list(values) if isinstance(old, list) else tuple(values)


# --- in the record of an architecture -----------------------------------------------------------


def changed_sizes(layer: nn.Module) -> dict[str, int | list[int]]:
    """Return the attributes of a module that cuts have changed, as plain data for a file."""
    dense = vars(layer).get(_DENSE, {})
    now = {name: getattr(layer, name) for name in dense}
    return {
        name: list(value) if isinstance(value, tuple | list) else value
        for name, value in now.items()
        if value != dense[name]
    }


def is_sizes_entry(sizes: Any) -> bool:
    """Return whether a file may hold this as the sizes of a module: whole numbers by attribute.

    >>> is_sizes_entry({"num_heads": 2, "split": [4, 4]}), is_sizes_entry({"_forward": 1})
    (True, False)
    """
    if not isinstance(sizes, dict):
        return False
    for attribute, value in sizes.items():
        values = value if isinstance(value, list) else [value]
        whole = all(
            isinstance(n, int) and not isinstance(n, bool) and 0 <= n < _LARGEST for n in values
        )
        if not whole or not 1 <= len(values) <= _MOST_ENTRIES or attribute.startswith("_"):
            return False
    return bool(sizes)


def why_no_size(layer: nn.Module, attribute: str, value: Any) -> str | None:
    """Return why no cut gives an attribute of a module this value; None where one can.

    Args:
        layer: The module, dense or cut.
        attribute: What a file names.
        value: What it gives: an int, or a list of them.

    >>> conv = nn.Conv2d(8, 8, 1, groups=4)
    >>> why_no_size(conv, "groups", 2), why_no_size(conv, "groups", 8)
    (None, 'groups is 8 in the file and 4 when dense')
    """
    dense = vars(layer).get(_DENSE, {}).get(attribute, vars(layer).get(attribute))
    known = not type(layer).__module__.startswith("torch.nn.") or attribute in _OF_TORCH
    old = list(dense) if isinstance(dense, tuple | list) else [dense]
    new = list(value) if isinstance(value, tuple | list) else [value]
    same = isinstance(dense, tuple | list) == isinstance(value, tuple | list)
    numbers = all(isinstance(n, int) and not isinstance(n, bool) for n in (*old, *new))
    if attribute.startswith("_") or not (known and same and numbers and len(old) == len(new)):
        return f"{attribute} is no number of the module that a cut changes"
    if any(not 1 <= n <= most for n, most in zip(new, old, strict=True)):
        return f"{attribute} is {value} in the file and {dense} when dense"
    return None


def load_sizes(layer: nn.Module, sizes: Mapping[str, int | list[int]]) -> None:
    """Set the sizes of a module to those of a file, all others that cuts had changed to dense ones.

    Args:
        layer: The module.
        sizes: What ``changed_sizes`` returned; check it first with ``why_no_size``.
    """
    dense = dict(vars(layer).get(_DENSE, {}))
    for name, value in dense.items():
        setattr(layer, name, value)
    for name, value in sizes.items():
        old = getattr(layer, name)
        dense.setdefault(name, old)
        setattr(layer, name, value if isinstance(value, int) else _like(old, value))
    if dense:
        vars(layer)[_DENSE] = dense
