"""Whether a cut can have made the tensors of a file."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _MaxPoolNd,
)

from lightning_prune.graph.layer_kinds import rule_of

Shape = Sequence[int]
_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm)
_PASSING = (
    *_NORMS, _DropoutNd, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd,
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.ELU,
    nn.Hardswish, nn.Hardsigmoid, nn.Mish, nn.Softplus, nn.PReLU, nn.Upsample,
)  # fmt: skip


def why_no_cut(
    name: str,
    layer: nn.Module,
    dense: Mapping[str, Shape],
    new: Mapping[str, Shape],
    groups: int | None = None,
) -> str | None:
    """Return why no cut of a layer has tensors of these shapes; None where one can have.

    A cut leaves kernels as they are, and gives all vectors of a layer the same length. Of layers
    with a rule of their own (``graph.layer_kinds.register``), and of others than convolutions,
    linear layers and norms, nothing is known here.

    Args:
        name: The layer's name, for the sentence.
        layer: The layer.
        dense: Name within the layer -> shape before any cut.
        new: The same of the tensors in question, as far as they are there.
        groups: Number of groups that the file gives a convolution or group norm, if it gives one.

    >>> dense = {"weight": (8, 3, 3, 3), "bias": (8,)}
    >>> why_no_cut("stem", nn.Conv2d(3, 8, 3), dense, {"weight": (6, 3, 3, 3), "bias": (5,)})
    'stem.bias is (5,) beside a weight of (6, 3, 3, 3)'
    """
    if rule_of(layer) is not None:
        return None
    weight = new.get("weight")
    vectors = {key: shape for key, shape in new.items() if key != "weight" and len(shape) == 1}
    if isinstance(layer, _ConvNd):
        return _why_no_convolution(name, layer, dense, new, groups)
    if isinstance(layer, nn.Linear) and weight is not None:
        return _odd_one(name, vectors, weight[0], weight)
    if isinstance(layer, nn.LayerNorm) and weight is not None:
        other = new.get("bias", weight)
        same = list(other) == list(weight)
        return None if same else f"{name}.bias is {tuple(other)} beside a weight of {tuple(weight)}"
    if not isinstance(layer, _NORMS):
        return None
    first = weight if weight is not None else next(iter(vectors.values()), None)
    if first is None:
        return None
    if type(layer) is nn.GroupNorm and groups and first[0] % groups:
        return f"{name} has {first[0]} channels, which do not divide into {groups} groups"
    return _odd_one(name, vectors, first[0], first)


def _why_no_convolution(
    name: str,
    layer: _ConvNd,
    dense: Mapping[str, Shape],
    new: Mapping[str, Shape],
    groups: int | None,
) -> str | None:
    weight, old = new.get("weight"), dense.get("weight")
    if weight is None or old is None:
        return None
    if list(weight[2:]) != list(old[2:]):
        return (
            f"{name}.weight has a kernel of {tuple(weight[2:])} in the file and of "
            f"{tuple(old[2:])} when dense"
        )
    groups = layer.groups if groups is None else groups
    transposed = isinstance(layer, _ConvTransposeNd)
    if weight[0] % groups and list(weight) != list(old):
        return f"{name}.weight has {weight[0]} channels, which do not divide into {groups} groups"
    rows = weight[1] * groups if transposed else weight[0]
    vectors = {key: shape for key, shape in new.items() if key != "weight" and len(shape) == 1}
    return _odd_one(name, vectors, rows, weight)


def _odd_one(name: str, vectors: Mapping[str, Shape], rows: int, weight: Shape) -> str | None:
    for key, shape in vectors.items():
        if shape[0] != rows:
            return f"{name}.{key} is {tuple(shape)} beside a weight of {tuple(weight)}"
    return None


def why_no_attention(name: str, shapes: Mapping[str, Shape], heads: int) -> str | None:
    """Return why no cut of an ``nn.MultiheadAttention`` has these tensors; None where one can.

    Queries and keys of a head have one width, values may have another.

    Args:
        name: The layer's name.
        shapes: Full name of a tensor -> its shape in the file.
        heads: How many heads the file gives it.

    >>> shapes = {"a.in_proj_weight": (20, 16), "a.out_proj.weight": (16, 8)}
    >>> why_no_attention("a", shapes, 2), why_no_attention("a", shapes, 4)
    (None, 'a has rows for queries, keys and values of 6, 6 and 8, which is not 4 heads of each')
    """
    prefix = f"{name}." if name else ""
    own = {k.removeprefix(prefix): s for k, s in shapes.items() if k.startswith(prefix)}
    output, packed = own.get("out_proj.weight"), own.get("in_proj_weight")
    if output is None:
        return None
    rows = [own.get(f"{part}_proj_weight", (-1,))[0] for part in "qkv"]
    if packed is not None:
        half = (packed[0] - output[1]) / 2
        rows = [int(half) if half.is_integer() else -1] * 2 + [output[1]]
    elif -1 in rows:
        return None
    bias = own.get("in_proj_bias", (sum(rows),))[0]
    vectors = [own.get(f"bias_{part}", (1, 1, rows[n]))[2] for n, part in ((1, "k"), (2, "v"))]
    if rows[0] != rows[1] or rows[2] != output[1] or bias != sum(rows) or vectors != rows[1:]:
        return f"the tensors of {name or 'the attention'} do not fit one another in the file"
    if min(rows) < heads or any(size % heads for size in rows):
        return (
            f"{name} has rows for queries, keys and values of {rows[0]}, {rows[1]} and {rows[2]}, "
            f"which is not {heads} heads of each"
        )
    return None


def why_no_chain(
    module: nn.Module, name: str, shapes: Mapping[str, Shape], groups: Mapping[str, Any]
) -> str | None:
    """Return which layer of an ``nn.Sequential`` does not take what the one before it gives.

    Args:
        module: The container; other modules have no order that could be known.
        name: Its name, for the sentence and the shapes.
        shapes: Full name of a tensor -> its shape in the file.
        groups: Name of a convolution -> its groups in the file.
    """
    if type(module) is not nn.Sequential:
        return None
    width, giver = None, ""
    for own, layer in _steps(module, name):
        weight = shapes.get(f"{own}.weight")
        takes, gives = _widths(layer, weight, groups.get(own, getattr(layer, "groups", 1)))
        if width is not None and takes is not None and takes != width:
            return f"{own} takes {takes} channels, and {giver} before it gives {width}"
        if gives is not None:
            width, giver = gives, own
        elif not isinstance(layer, _PASSING):
            width = None
    return None


def _steps(module: nn.Sequential, name: str) -> Iterator[tuple[str, nn.Module]]:
    for key, layer in module.named_children():
        own = f"{name}.{key}" if name else key
        if type(layer) is nn.Sequential:
            yield from _steps(layer, own)
        else:
            yield own, layer


def _widths(layer: nn.Module, weight: Shape | None, groups: int) -> tuple[int | None, int | None]:
    """Return how many channels a layer takes and gives; None where that is not known."""
    if weight is None or rule_of(layer) is not None:
        return None, None
    if isinstance(layer, _ConvTransposeNd):
        return weight[0], weight[1] * groups
    if isinstance(layer, _ConvNd):
        return weight[1] * groups, weight[0]
    if isinstance(layer, nn.Linear):
        return weight[1], weight[0]
    if isinstance(layer, _NORMS) or (isinstance(layer, nn.PReLU) and weight[0] > 1):
        return weight[0], None
    return None, None
