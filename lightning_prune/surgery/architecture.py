"""State dicts that describe their own architecture, and modules that follow them on load."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.files.file_error import printable
from lightning_prune.graph.layer_kinds import sync_sizes
from lightning_prune.graph.names import holders, layer_of, modules_by_name, plain_name
from lightning_prune.graph.removed_rows import tensor_name
from lightning_prune.surgery.adapted_layers import adapt_layers
from lightning_prune.surgery.cut_shapes import why_no_attention, why_no_chain, why_no_cut
from lightning_prune.surgery.exact_norms import sync_norm_sizes
from lightning_prune.surgery.incoming_values import check_values
from lightning_prune.surgery.json_tensor import from_json_tensor, to_json_tensor
from lightning_prune.surgery.memory_format import memory_format_of
from lightning_prune.surgery.recorded_attributes import (
    attributes_of,
    check_attributes,
    is_count,
    set_attributes,
    why_foreign,
)
from lightning_prune.surgery.recorded_counts import follow_counts, read_counts

RECORD = "pruned_model_use_lightning_prune_load_pruned"
"""Key of the record in a state dict: uint8, UTF-8 JSON; written only where something was cut.

A strict load into a class that knows nothing of pruning names unexpected keys in its first line:
the key is what to do.
"""
EARLIER_RECORD = "architecture_record"

_ORIGIN = "_lightning_prune_origin"
_LARGEST_RECORD = 1 << 24


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    tensors: list[tuple[str, Tensor]] = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    return {plain_name(name): list(value.shape) for name, value in tensors}


def track_architecture(module: nn.Module) -> nn.Module:
    """Make a module's state dict carry its widths, and its loading follow them.

    Call it at the end of ``__init__``: then resuming, ``load_from_checkpoint``, testing,
    weights-only files and averaged copies of a pruned model all load through the ordinary strict
    ``load_state_dict``. Saving a module from which nothing was cut writes an ordinary state dict.
    Loading resizes the live module, narrower or wider, if the file is a cut or the dense version
    of the same architecture; anything else is left to the strict load's own error.

    Args:
        module: The module; calling it again changes nothing.

    Returns:
        The same module.
    """
    if hasattr(module, _ORIGIN):
        return module
    origin = {"shapes": _shapes(module), "attributes": attributes_of(module)}
    object.__setattr__(module, _ORIGIN, origin)
    module.register_state_dict_post_hook(_write_record)
    module.register_load_state_dict_pre_hook(_follow_record)
    return module


def is_tracked(module: nn.Module) -> bool:
    """Return whether ``track_architecture`` was called on a module."""
    return hasattr(module, _ORIGIN)


def is_cut(module: nn.Module) -> bool:
    """Return whether a tracked module is narrower than it was built."""
    return is_tracked(module) and any(_changes(module).values())


def _changes(module: nn.Module) -> dict[str, Any]:
    origin = getattr(module, _ORIGIN)
    shapes, attributes = _shapes(module), attributes_of(module)
    dense = origin["shapes"]
    return {
        "dense": {k: dense[k] for k, shape in shapes.items() if k in dense and shape != dense[k]},
        "attributes": {
            k: own for k, own in attributes.items() if own != origin["attributes"].get(k)
        },
    }


def _write_record(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, _metadata: Any
) -> None:
    changes = _changes(module)
    if not any(changes.values()):
        return
    state_dict[prefix + RECORD] = to_json_tensor({"version": 1, **changes})


def with_record(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict whose records have their present name; earlier files had another."""
    ends = {name: name.rpartition(".") for name in state_dict if isinstance(name, str)}
    renamed = {name: f"{a}{b}{RECORD}" for name, (a, b, c) in ends.items() if c == EARLIER_RECORD}
    return {renamed.get(name, name): value for name, value in state_dict.items()}


def read_record(state_dict: Mapping[str, Any], prefix: str = "") -> dict[str, Any] | None:
    """Return the architecture record of a state dict, or None where nothing was cut.

    Raises:
        ValueError: the record is there but cannot be read.
    """
    raw = state_dict.get(prefix + RECORD)
    if raw is None:
        return None
    try:
        record = from_json_tensor(raw, _LARGEST_RECORD)
        if record["version"] != 1:
            version = printable(str(record["version"]), 20)
            raise ValueError(f"version {version}: this lightning_prune reads version 1")
        for name, shape in record["dense"].items():
            sizes = shape if isinstance(shape, list) and len(shape) <= 64 else [None]
            if not all(is_count(size, 0) and int(size or 0) < 2**63 for size in sizes):
                raise ValueError(f"{printable(name)} has the shape {printable(str(shape))}")
        for name, own in record["attributes"].items():
            check_attributes(name, own)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{prefix + RECORD} in the state dict is unreadable "
            f"({printable(str(error), 200)}): the file was altered"
        ) from error
    return dict(record)


def _follow_record(
    module: nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    _metadata: Any,
    _strict: bool,
    _missing: list[str],
    _unexpected: list[str],
    errors: list[str],
) -> None:
    if prefix + EARLIER_RECORD in state_dict:
        state_dict[prefix + RECORD] = state_dict.pop(prefix + EARLIER_RECORD)
    record = read_record(state_dict, prefix)
    state_dict.pop(prefix + RECORD, None)
    origin = getattr(module, _ORIGIN)
    dense = origin["shapes"] if record is None else {**origin["shapes"], **record["dense"]}
    foreign = [k for k in dense if k in origin["shapes"] and dense[k] != origin["shapes"][k]]
    if foreign:
        errors.append(
            f"the file was cut from a wider or other architecture: {foreign[0]} was "
            f"{tuple(dense[foreign[0]])} there and is {tuple(origin['shapes'][foreign[0]])} in "
            f"{type(module).__name__}; build the model with the arguments of the saved one"
        )
        return
    own = [name for name in state_dict if isinstance(name, str) and name.startswith(prefix)]
    plain = {plain_name(name[len(prefix) :]): name for name in own}
    if len(plain) != len(own):
        twice = next(name for name in own if name not in plain.values())
        raise ValueError(
            f"two names in the file differ only by _orig_mod.: {printable(twice, 200)} is one of "
            "them"
        )
    incoming = {k: v for k, name in plain.items() if isinstance(v := state_dict[name], Tensor)}
    cut = set() if record is None else set(record["dense"])
    wanted = {
        name: value
        for name, value in incoming.items()
        if name in cut & origin["shapes"].keys() or list(value.shape) == origin["shapes"].get(name)
    }
    check_values(module, incoming, prefix)
    recorded = {} if record is None else record["attributes"]
    layers = {plain_name(name): layer for name, layer in module.named_modules()}
    problem = _wider(origin["shapes"], wanted) or why_foreign(
        origin["attributes"], layers, recorded
    )
    attributes = {**origin["attributes"], **recorded}
    shapes = {name: list(value.shape) for name, value in wanted.items()}
    if problem is None:
        counts, problem = read_counts(
            layers, origin["attributes"], origin["shapes"], attributes, shapes
        )
    if problem is None and record is not None:
        problem = _impossible(origin, layers, wanted, recorded)
    if problem is not None:
        # Not among the errors of the strict load: those would be a line for every tensor.
        raise ValueError(f"{problem}: no cut makes that, so the file was altered")
    for name, layer in layers.items():
        # Before the resize: a depthwise layer's width follows from its groups.
        set_attributes(layer, attributes.get(name, {}))
    resize_to(module, wanted)
    follow_counts(layers, counts, attributes)


def _wider(shapes: Mapping[str, list[int]], tensors: Mapping[str, Tensor]) -> str | None:
    """Return which tensor no cut of the dense shapes has; None if each could be one."""
    for name, value in tensors.items():
        dense, new = shapes[name], list(value.shape)
        fits = len(new) == len(dense) and all(
            min(old, 1) <= size <= old for size, old in zip(new, dense, strict=True)
        )
        if not fits:
            return f"{name} is {tuple(new)} in the file and {tuple(dense)} when dense"
    return None


def _impossible(
    origin: Mapping[str, Any],
    layers: Mapping[str, nn.Module],
    tensors: Mapping[str, Tensor],
    recorded: Mapping[str, Mapping[str, Any]],
) -> str | None:
    """Return which layer no cut gives these tensors; None if each could be made by one."""
    attributes = {**origin["attributes"], **recorded}
    groups = {
        name: own.get("groups", own.get("num_groups"))
        for name, own in attributes.items()
        if own and "widths" not in own
    }
    dense: dict[str, dict[str, list[int]]] = defaultdict(dict)
    new: dict[str, dict[str, list[int]]] = defaultdict(dict)
    for name, value in tensors.items():
        owner, _, own = name.rpartition(".")
        dense[owner][own] = origin["shapes"][name]
        new[owner][own] = list(value.shape)
    for owner, shapes in new.items():
        layer = layers.get(owner)
        if layer is None:
            continue
        problem = why_no_cut(owner or "the module", layer, dense[owner], shapes, groups.get(owner))
        if problem is not None:
            return problem
    shapes_by_name = {name: list(value.shape) for name, value in tensors.items()}
    for name, layer in layers.items():
        if isinstance(layer, nn.MultiheadAttention):
            heads = attributes.get(name, {}).get("num_heads", layer.num_heads)
            problem = why_no_attention(name, shapes_by_name, heads)
            if problem is not None:
                return problem
    chains = (
        why_no_chain(layer, name, shapes_by_name, {k: g for k, g in groups.items() if g})
        for name, layer in layers.items()
    )
    return next((problem for problem in chains if problem is not None), None)


@torch.no_grad()
def resize_to(module: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Resize parameters and buffers to the shapes of other tensors of the same names.

    Values are left undefined where a shape changes: a strict load fills them. Device, dtype,
    memory format and ``requires_grad`` stay, tensors that layers share stay shared; the layers'
    size attributes follow.

    Args:
        module: The module to resize.
        tensors: Name -> tensor whose shape is wanted; names that the module lacks are ignored.

    Returns:
        The names that changed shape.

    Raises:
        ValueError: a tensor that layers share has several shapes. Nothing is changed then.
    """
    changed: list[str] = []
    touched: dict[str, None] = {}
    layers = modules_by_name(module)
    held = holders(module)
    wanted = {tensor: _one_shape(module, places, tensors) for tensor, places in held.items()}
    for tensor, places in held.items():
        shape, (_, first, name) = wanted[tensor], places[0]
        value: Tensor = getattr(first, name)
        if shape is None or shape == value.shape or len(shape) != value.ndim:
            continue
        fresh: Tensor = torch.empty(
            shape, dtype=value.dtype, device=value.device, memory_format=memory_format_of(value)
        )
        if isinstance(value, nn.Parameter):
            fresh = nn.Parameter(fresh, requires_grad=value.requires_grad)
        for holder, layer, own in places:
            setattr(layer, own, fresh)
            changed.append(tensor_name(holder, own))
            touched[holder] = touched[layer_of(holder)] = None
    for holder in touched:
        sync_sizes(layers[holder])
        sync_norm_sizes(layers[holder])
    adapt_layers(module, [layers[holder] for holder in touched])
    return changed


def _one_shape(
    module: nn.Module,
    places: Sequence[tuple[str, nn.Module, str]],
    tensors: Mapping[str, Tensor],
) -> torch.Size | None:
    names = [tensor_name(holder, own) for holder, _, own in places]
    shapes = dict.fromkeys(tensors[name].shape for name in names if name in tensors)
    if len(shapes) > 1:
        raise ValueError(
            f"{' and '.join(names)} are one parameter of {type(module).__name__} and have the "
            f"shapes {' and '.join(str(tuple(shape)) for shape in shapes)} in the file"
        )
    return next(iter(shapes), None)
