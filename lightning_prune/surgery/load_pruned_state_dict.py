"""Loads the weights of a pruned model into the dense module they came from."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from lightning_prune.files.file_error import printable
from lightning_prune.graph.layer_kinds import is_depthwise
from lightning_prune.graph.names import plain_name
from lightning_prune.surgery.architecture import RECORD, resize_to, track_architecture, with_record
from lightning_prune.surgery.incoming_values import check_values

_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm)
_LAYERS = (_ConvNd, nn.Linear, nn.LayerNorm, nn.PReLU, *_NORMS)


class LoadedKeys(NamedTuple):
    """What ``load_state_dict`` returns: names without a tensor, and tensors without a name."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load_pruned_state_dict(
    model: nn.Module, state_dict: Mapping[str, Any], strict: bool = True
) -> LoadedKeys:
    """Narrow a dense module to the widths of a pruned state dict, and load it.

    The layers follow the shapes: convolutions (grouped ones keep their number of groups, depthwise
    ones stay depthwise), transposed convolutions, linear layers, norms, PReLU, and parameters of a
    user's own modules. Device, dtype and ``requires_grad`` stay, and tied parameters stay tied;
    narrowed parameters are new objects, so make the optimizer afterwards. What no shape shows (a
    norm that lost whole groups, or that counts cut channels as zeros) needs a file with an
    architecture record: one written by a module on which ``track_architecture`` was called. Where
    the file has one, it is followed, and the module is tracked from then on. If anything is wrong,
    nothing is changed.

    Args:
        model: The module as it was before pruning, or already as narrow as the file.
        state_dict: Tensors by name, of a file from this or another tool.
        strict: Whether missing and unexpected names are an error, as in ``load_state_dict``.

    Returns:
        What ``load_state_dict`` returns: ``missing_keys`` and ``unexpected_keys``.

    Raises:
        TypeError: ``state_dict`` is no mapping.
        ValueError: shapes that no cut of this module has; the message names the tensor.
        RuntimeError: names are missing or unexpected, and ``strict``.

    >>> pruned = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1))
    >>> dense = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1))
    >>> load_pruned_state_dict(dense, pruned.state_dict())
    LoadedKeys(missing_keys=[], unexpected_keys=[])
    >>> dense[0], dense[2].in_channels
    (Conv2d(3, 5, kernel_size=(3, 3), stride=(1, 1)), 5)
    """
    state = with_record(_named_as_in(model, state_dict))
    records = [name for name in state if name.split(".")[-1] == RECORD]
    with _all_or_nothing(model):
        if records:
            for name in records:
                track_architecture(_owner(model, name))
        else:
            try:
                _follow_shapes(model, state)
            except ValueError:
                if strict and not dict(model.named_parameters()).keys() <= state.keys():
                    # Another model altogether: the missing names say more than one shape.
                    model.load_state_dict(state)
                raise
            check_values(model, state)
            own = model.state_dict()
            # A tracked module takes a file without a record for a dense one.
            state |= {name: own[name] for name in own if name.split(".")[-1] == RECORD}
        return LoadedKeys(*model.load_state_dict(state, strict=strict))


def _owner(model: nn.Module, record: str) -> nn.Module:
    try:
        return model.get_submodule(record.removesuffix(RECORD).rstrip("."))
    except AttributeError as error:
        raise ValueError(
            f"{printable(record, 200)} in the file belongs to no part of {type(model).__name__}: "
            f"{printable(str(error), 200)}"
        ) from error


def _named_as_in(model: nn.Module, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"state_dict is a {type(state_dict).__name__}: pass what module.state_dict() returned "
            "and torch.load(path, weights_only=True) reads back"
        )
    if isinstance(state_dict.get("state_dict"), Mapping):
        raise ValueError("this is a whole checkpoint: pass checkpoint['state_dict']")
    plain = {plain_name(name) for name in _text_names(state_dict)}
    if len(plain) != len(state_dict):
        raise ValueError("two names in the file differ only by _orig_mod.: it was altered")
    own = {plain_name(name): name for name in model.state_dict()}
    return {own.get(plain_name(name), name): value for name, value in state_dict.items()}


def _text_names(state_dict: Mapping[Any, Any]) -> list[str]:
    for name in state_dict:
        if not isinstance(name, str):
            shown = printable(str(name)) if isinstance(name, int) else f"a {type(name).__name__}"
            raise ValueError(f"{shown} is no name of a tensor: pass a state dict")
    return list(state_dict)


def _follow_shapes(model: nn.Module, state: Mapping[str, Any]) -> None:
    incoming = {plain_name(k): value for k, value in state.items() if isinstance(value, Tensor)}
    for name, layer in model.named_modules():
        prefix = plain_name(name + "." if name else "")
        tensors = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
        own = {tensor: value.shape for tensor, value in tensors}
        wanted = {n: incoming[prefix + n] for n in own if prefix + n in incoming}
        if any(value.shape != own[tensor] for tensor, value in wanted.items()):
            for tensor, value in wanted.items():
                _check_tensor(prefix + tensor, own[tensor], value)
            shapes = {tensor: wanted[tensor].shape for tensor in wanted}
            _check_layer(prefix.rstrip(".") or type(layer).__name__, layer, own | shapes)
    resize_to(model, incoming)


def _check_tensor(name: str, own: torch.Size, value: Tensor) -> None:
    wanted = value.shape
    if len(wanted) != len(own):
        why = f"has {len(wanted)} dimensions there and {len(own)} here"
    elif 0 in wanted:
        why = "is empty"
    elif any(new > old for new, old in zip(wanted, own, strict=True)):
        why = "is wider there: a cut only narrows; build the model with the saved one's arguments"
    else:
        return
    raise ValueError(f"{name} is {tuple(wanted)} in the file, {tuple(own)} in the model: it {why}")


def _check_layer(name: str, layer: nn.Module, shapes: Mapping[str, torch.Size]) -> None:
    """Check that a layer of these tensors can exist, and that a cut can have made it."""
    kind = type(layer).__name__
    if isinstance(layer, nn.MultiheadAttention):
        _check_attention(name, layer, shapes)
        return
    if not isinstance(layer, _LAYERS):
        if type(layer).__module__.startswith("torch."):
            raise ValueError(
                f"{name} is a {kind}, which is not supported: its tensors must keep the shapes "
                "they have in the model"
            )
        return
    weight = shapes.get("weight", next(iter(shapes.values())))
    if isinstance(layer, _ConvNd) and weight[2:] != layer.weight.shape[2:]:
        raise ValueError(
            f"{name}.weight has a kernel of {tuple(weight[2:])} in the file and of "
            f"{tuple(layer.weight.shape[2:])} in the model: that is another architecture"
        )
    if isinstance(layer, _ConvNd) and layer.groups > 1:
        _check_groups(name, layer, weight)
    if isinstance(layer, nn.GroupNorm) and weight[0] % layer.num_groups:
        raise ValueError(
            f"{name} has {weight[0]} channels in the file, which do not divide into its "
            f"{layer.num_groups} groups: only an architecture record can say how many are left "
            "(save from a module on which track_architecture was called)"
        )
    rows = weight[0]
    if isinstance(layer, _ConvTransposeNd) and not is_depthwise(layer):
        rows = weight[1] * layer.groups
    for tensor, shape in shapes.items():
        if tensor == "weight" or len(shape) == 0:
            continue
        fits = shape == weight if isinstance(layer, nn.LayerNorm) else shape == (rows,)
        if not fits:
            raise ValueError(
                f"{name}.{tensor} is {tuple(shape)} beside a weight of {tuple(weight)}: the file "
                "lacks one of them or was put together from several"
            )


def _check_attention(
    name: str, layer: nn.MultiheadAttention, shapes: Mapping[str, torch.Size]
) -> None:
    """Check that attention has the rows that it has in the model; its inputs may be narrower."""
    for tensor, own in layer.named_parameters(recurse=False):
        rows = -1 if tensor.startswith("bias_") else 0
        if shapes[tensor][rows] != own.shape[rows]:
            raise ValueError(
                f"{name}.{tensor} is {tuple(shapes[tensor])} in the file and {tuple(own.shape)} in "
                "the model: only an architecture record can say whether heads are gone or are "
                "narrower (save from a module on which track_architecture was called)"
            )


def _check_groups(name: str, layer: _ConvNd, weight: torch.Size) -> None:
    if is_depthwise(layer):
        if weight[1] == 1:
            return
        why = "it is depthwise in the model and not in the file"
    elif weight[0] % layer.groups == 0:
        return
    else:
        why = f"{weight[0]} channels do not divide into its {layer.groups} groups"
    raise ValueError(
        f"{name}.weight is {tuple(weight)} in the file: {why}, and only an architecture record "
        "can say how many groups are left (save from a module on which track_architecture was "
        "called)"
    )


@contextmanager
def _all_or_nothing(model: nn.Module) -> Iterator[None]:
    """Restore everything if loading fails: torch copies what fits before it complains."""
    kinds = [(module, module.__class__) for module in model.modules()]
    places = [
        (
            own,
            dict(own),
            {key: dict(value) for key, value in own.items() if isinstance(value, dict)},
        )
        for own in (module.__dict__ for module in model.modules())
    ]
    values = [(t, t.detach().clone()) for t in [*model.parameters(), *model.buffers()]]
    try:
        yield
    except BaseException:
        for module, kind in kinds:
            module.__class__ = kind  # of a norm that counts cut channels
        for own, attributes, contents in places:
            own.clear()
            own.update(attributes)
            for key, content in contents.items():  # parameters, buffers, hooks
                own[key].clear()
                own[key].update(content)
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)
        raise
