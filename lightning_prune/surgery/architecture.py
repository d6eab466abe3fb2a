"""State dicts that describe their own architecture, and modules that follow them on load."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.graph.layers import sync_sizes
from lightning_prune.graph.names import plain_name

RECORD = "architecture_record"
"""Key of the record in a state dict: uint8, UTF-8 JSON; written only where something was cut."""

_ORIGIN = "_lightning_prune_origin"
_ATTRIBUTES = ("groups", "num_groups", "eps", "num_heads")
_LARGEST_RECORD = 1 << 24


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    tensors: list[tuple[str, Tensor]] = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    return {plain_name(name): list(value.shape) for name, value in tensors}


def _attributes(module: nn.Module) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, layer in module.named_modules():
        own = {
            key: getattr(layer, key)
            for key in _ATTRIBUTES
            if isinstance(getattr(layer, key, None), int | float)
        }
        if own and not any(True for _ in layer.children()):
            found[plain_name(name)] = own
    return found


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
    origin = {"shapes": _shapes(module), "attributes": _attributes(module)}
    object.__setattr__(module, _ORIGIN, origin)
    module.register_state_dict_post_hook(_write_record)
    module.register_load_state_dict_pre_hook(_follow_record)
    return module


def is_tracked(module: nn.Module) -> bool:
    """Tell whether ``track_architecture`` was called on a module."""
    return hasattr(module, _ORIGIN)


def _changes(module: nn.Module) -> dict[str, Any]:
    origin = getattr(module, _ORIGIN)
    shapes, attributes = _shapes(module), _attributes(module)
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
    text = json.dumps({"version": 1, **changes}, separators=(",", ":"), sort_keys=True)
    # A list, not a buffer view: safetensors and weights_only both want plain owned storage.
    state_dict[prefix + RECORD] = torch.tensor(list(text.encode()), dtype=torch.uint8)


def read_record(state_dict: Mapping[str, Any], prefix: str = "") -> dict[str, Any] | None:
    """Return the architecture record of a state dict, or None where nothing was cut.

    Raises:
        ValueError: the record is there but cannot be read.
    """
    raw = state_dict.get(prefix + RECORD)
    if raw is None:
        return None
    try:
        if not isinstance(raw, Tensor) or raw.dtype != torch.uint8 or raw.ndim != 1:
            raise ValueError("not a 1-D uint8 tensor")
        if raw.numel() > _LARGEST_RECORD:
            raise ValueError(f"{raw.numel()} bytes")
        record = json.loads(bytes(raw.cpu().tolist()).decode())
        if record["version"] != 1:
            raise ValueError(f"version {record['version']}: this lightning_prune reads version 1")
        assert isinstance(record["dense"], dict)
        assert isinstance(record["attributes"], dict)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(
            f"{prefix + RECORD} in the state dict is unreadable ({error}): the file was altered"
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
    incoming = {
        plain_name(name[len(prefix) :]): value
        for name, value in state_dict.items()
        if name.startswith(prefix) and isinstance(value, Tensor)
    }
    cut = set() if record is None else set(record["dense"])
    wanted = {
        name: value
        for name, value in incoming.items()
        if name in cut or list(value.shape) == origin["shapes"].get(name)
    }
    attributes = {**origin["attributes"], **({} if record is None else record["attributes"])}
    for name, layer in module.named_modules():
        for key, value in attributes.get(plain_name(name), {}).items():
            # Before the resize: a depthwise layer's width follows from its groups.
            if getattr(layer, key) != value:
                setattr(layer, key, value)
    resize_to(module, wanted)


@torch.no_grad()
def resize_to(module: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Give parameters and buffers the shapes of other tensors of the same names.

    Values are left undefined where a shape changes: a strict load fills them. Device, dtype and
    ``requires_grad`` stay; the layers' size attributes follow.

    Args:
        module: The module to resize.
        tensors: Name -> tensor whose shape is wanted; names that the module lacks are ignored.

    Returns:
        The names that changed shape.
    """
    changed: list[str] = []
    for prefix, layer in module.named_modules():
        prefix = plain_name(prefix + "." if prefix else "")
        touched = False
        own = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
        for name, value in own:
            wanted = tensors.get(prefix + name)
            if wanted is None or wanted.shape == value.shape or wanted.ndim != value.ndim:
                continue
            fresh: Tensor = torch.empty(wanted.shape, dtype=value.dtype, device=value.device)
            if isinstance(value, nn.Parameter):
                fresh = nn.Parameter(fresh, requires_grad=value.requires_grad)
            setattr(layer, name, fresh)
            changed.append(prefix + name)
            touched = True
        if touched:
            sync_sizes(layer)
    return changed
