"""What norms count, in the record of an architecture."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lightning_prune.files.file_error import printable
from lightning_prune.surgery.exact_norms import (
    ZeroCount,
    dense_count,
    set_count,
    sync_norm_sizes,
    zero_count,
)

COUNT_KEYS = ("counted", "channels", "widths")
"""Keys of a norm in the record: channels that a statistic counts, channels that a norm without
tensors has, and the width of each group where they differ."""
_MOST_GROUPS = 1 << 16

Attributes = Mapping[str, Mapping[str, Any]]
Shapes = Mapping[str, list[int]]


def recorded_count(layer: nn.Module) -> dict[str, Any]:
    """Return the entries of one layer in the record; empty for all that is no norm.

    >>> recorded_count(nn.LayerNorm(8)), recorded_count(nn.LayerNorm(8, elementwise_affine=False))
    ({}, {'channels': 8})
    """
    found: dict[str, Any] = {}
    count = zero_count(layer)
    if count is not None:
        found["counted"] = count.counted
        if count.is_uneven:
            found["widths"] = list(count.widths)
    if next(layer.parameters(recurse=False), None) is None:
        stated = getattr(layer, "normalized_shape", None)
        if isinstance(layer, nn.GroupNorm):
            found["channels"] = layer.num_channels
        elif isinstance(stated, tuple | list | torch.Size) and len(stated) == 1:
            found["channels"] = stated[0]
    return found


def is_count_entry(key: str, value: Any) -> bool:
    """Return whether a record may have a value under one of ``COUNT_KEYS``."""
    values = value if key == "widths" and isinstance(value, list) else [value]
    plain = all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in values)
    return plain and 1 <= len(values) <= _MOST_GROUPS and (key == "widths") == (values is value)


def read_counts(
    layers: Mapping[str, nn.Module],
    dense: Attributes,
    dense_shapes: Shapes,
    attributes: Attributes,
    shapes: Shapes,
) -> tuple[dict[str, ZeroCount], str | None]:
    """Return what each norm counts by a record, and why no cut makes that, or None.

    Args:
        layers: Every module by its name.
        dense: The attributes before any cut.
        dense_shapes: The shapes before any cut, of all tensors.
        attributes: Those of the file, where it gives none the dense ones.
        shapes: The shapes in the file, of the tensors that are loaded.
    """
    counts: dict[str, ZeroCount] = {}
    for name, own in attributes.items():
        layer, before = layers.get(name), dense.get(name, {})
        if layer is None or not own.keys() & set(COUNT_KEYS):
            continue
        if own.get("channels", 0) > before.get("channels", 0):
            most = before.get("channels", "nothing")
            return {}, f"{name}.channels is {own['channels']} in the file and {most} when dense"
        if "counted" not in own and "widths" not in own:
            continue
        found = _count_of(name, layer, own, before, dense_shapes, shapes)
        if isinstance(found, str):
            return {}, found
        counts[name] = found
    return counts, None


def _count_of(
    name: str,
    layer: nn.Module,
    own: Mapping[str, Any],
    before: Mapping[str, Any],
    dense_shapes: Shapes,
    shapes: Shapes,
) -> ZeroCount | str:
    prefix = f"{name}." if name else ""
    tensors = [prefix + key for key, _ in layer.named_parameters(recurse=False)]
    wide = [torch.Size(dense_shapes[key]).numel() for key in tensors if key in dense_shapes]
    narrow = [torch.Size(shapes[key]).numel() for key in tensors if key in shapes]
    channels = wide[0] if wide else before.get("channels", 0)
    left = narrow[0] if narrow else own.get("channels", channels)
    whole = dense_count(layer, channels, before.get("num_groups")) if channels else None
    if whole is None:
        return f"{name} counts cut channels in the file and is no norm that can"
    counted = before.get("counted", whole.counted)
    if own.get("counted") != counted:
        given = printable(str(own.get("counted")))
        return f"{name}.counted is {given} in the file and {counted} when dense"
    if not whole.widths:
        return f"{name}.widths are of no group norm" if "widths" in own else whole
    groups = own.get("num_groups", len(whole.widths))
    widths = own.get("widths", [left // groups] * groups)
    if len(widths) != groups or sum(widths) != left or max(widths) > counted:
        return (
            f"{name} has groups of {printable(str(widths))} channels in the file, which is not "
            f"{left} channels in {groups} groups of at most {counted}"
        )
    return replace(whole, counted=counted, widths=tuple(widths))


def follow_counts(
    layers: Mapping[str, nn.Module], counts: Mapping[str, ZeroCount], attributes: Attributes
) -> None:
    """Make norms count what ``read_counts`` returned, and all others what they have.

    Args:
        layers: Every module by its name.
        counts: What norms count.
        attributes: As for ``read_counts``; the channels of norms without tensors are set.
    """
    for name, layer in layers.items():
        if zero_count(layer) != counts.get(name):
            set_count(layer, counts.get(name))
        if "channels" in (own := attributes.get(name, {})):
            sync_norm_sizes(layer, own["channels"])
