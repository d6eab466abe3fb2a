"""What a norm computes, found by trying it."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_prune.functional.zero_counting import (
    deviation_norm_of_kept,
    group_norm_of_kept,
    layer_norm_of_kept,
    response_norm_of_kept,
    rms_norm_of_kept,
)

Statistic = Literal["layer", "rms", "deviation", "response", "group"]
EPS_NAMES = ("eps", "variance_epsilon", "epsilon")
"""Attributes that may hold what a norm adds to its variance."""
_SIZES = ("normalized_shape", "num_channels", "num_features", "hidden_size", "dim", "d_model")
_AFTERWARDS = ("drop", "act")  # as timm names what its norms with an activation do last
_TOLERANCE = 1e-5  # many compute in float32 whatever they are given
_SHIFT = 0.7  # shows which of them subtract the mean


@dataclass(frozen=True)
class NormKind:
    """How a norm computes its output: statistic, where, and with which of its tensors.

    Attributes:
        statistic: Mean and variance ("layer"), mean square ("rms"), variance alone ("deviation"),
            mean response of channels over space ("response", of images), or mean and variance of
            groups of channels over space ("group").
        axis: Axis of the channels: -1 or 1.
        axes: Number of axes, the last ones, that the statistics run over; 1 but for a layer norm
            of a shape.
        eps: Name of the attribute that is added to the variance.
        scale: Name of the tensor of scales, or None.
        shift: Name of the tensor of shifts, or None.
        offset: Added to the scale: 1 where a module stores it less 1.
        after: Names of modules within that are called on the result.
        autocasts: Whether autocast on a GPU makes it return float32, as it does torch's own.
    """

    statistic: Statistic
    axis: int = -1
    axes: int = 1
    eps: str = "eps"
    scale: str | None = None
    shift: str | None = None
    offset: int = 0
    after: tuple[str, ...] = ()
    autocasts: bool = False


def norm_kind(layer: nn.Module, channels: int, kept: int | None = None) -> NormKind | None:
    """Return what a norm computes; None where it is none that is known.

    torch's own classes are known. Any other is run on random values (a copy, in eval mode) and its
    output compared with that of each kind: no library's class need be named here, and a class of
    the same name that computes something else is not taken for what it is not.

    Args:
        layer: The layer; left as it is.
        channels: Its channels when it was whole.
        kept: Its channels now, if its tensors have already been narrowed.

    >>> kind = norm_kind(nn.LayerNorm(8, bias=False), 8)
    >>> kind.statistic, kind.axis, kind.scale, kind.shift
    ('layer', -1, 'weight', None)
    >>> norm_kind(nn.BatchNorm2d(8), 8) is None
    True
    """
    own = _of_torch(layer)
    if own is not None:
        return own
    # Batch norms have no statistic over channels; a forward of the instance hides its class's.
    if isinstance(layer, nn.modules.batchnorm._NormBase) or "forward" in vars(layer):
        return None
    generator = torch.Generator().manual_seed(0)
    try:
        probe = _probe(layer, channels, channels if kept is None else kept, generator)
    except Exception:  # a module that cannot be copied cannot be tried
        return None
    kinds = list(_candidates(probe, channels))
    ranks = set()
    for x in _inputs(probe, channels, generator):
        try:
            y = probe.forward(x)
        except Exception:  # not a shape that it takes
            continue
        if not isinstance(y, Tensor) or y.shape != x.shape:
            continue  # its tensors were broadcast over another axis than it means
        ranks.add(x.ndim)
        kinds = [kind for kind in kinds if _explains(kind, probe, channels, x, y.double())]
        if not kinds:
            return None
    if not ranks or (kinds[0].statistic == "response" and 4 not in ranks):
        return None
    return kinds[0]


def compute_norm(
    layer: nn.Module, kind: NormKind, x: Tensor, counted: int, group: Tensor | int = 0
) -> Tensor:
    """Compute a norm of the channels that are left, counting those that were cut as zeros.

    Args:
        layer: The layer whose tensors and eps are taken.
        kind: What it computes.
        x: Its input.
        counted: Channels (of a group, for group norms) that each statistic counts.
        group: For group norms: see ``group_norm_of_kept``.
    """
    weight, bias = _tensor(layer, kind.scale), _tensor(layer, kind.shift)
    if weight is not None and kind.offset:
        weight = kind.offset + weight
    eps = getattr(layer, kind.eps)
    if kind.statistic == "group":
        groups: int = layer.num_groups  # type: ignore[assignment]
        y = group_norm_of_kept(x, group, groups, counted, weight, bias, eps)
    else:
        y = _over_channels(kind, x, counted, weight, bias, eps)
    if not (kind.autocasts and x.is_cuda and torch.is_autocast_enabled("cuda")):
        y = y.to(x.dtype)
    for name in kind.after:
        y = getattr(layer, name)(y)
    return y


def _over_channels(
    kind: NormKind, x: Tensor, counted: int, weight: Tensor | None, bias: Tensor | None, eps: Any
) -> Tensor:
    rows = x.movedim(kind.axis, -1) if kind.axis != -1 else x
    if kind.axes > 1:
        rows = rows.flatten(-kind.axes)
        weight, bias = (None if v is None else v.flatten() for v in (weight, bias))
    if kind.statistic in ("layer", "response"):
        norm = layer_norm_of_kept if kind.statistic == "layer" else response_norm_of_kept
        y = norm(rows, counted, weight, bias, eps)
    else:
        of_kept = rms_norm_of_kept if kind.statistic == "rms" else deviation_norm_of_kept
        y = of_kept(rows, counted, weight, eps)
        y = y if bias is None else y + bias.to(y.dtype)
    y = y.view(x.shape) if kind.axes > 1 else y
    return y.movedim(-1, kind.axis) if kind.axis != -1 else y


def _tensor(layer: nn.Module, name: str | None) -> Tensor | None:
    return None if name is None else getattr(layer, name)


def _of_torch(layer: nn.Module) -> NormKind | None:
    """Return the kind of a layer whose forward pass is torch's own."""
    forward = None if "forward" in vars(layer) else type(layer).forward
    kinds: list[tuple[type[nn.Module], Statistic]] = [
        (nn.LayerNorm, "layer"), (nn.RMSNorm, "rms"), (nn.GroupNorm, "group")
    ]  # fmt: skip
    for base, statistic in kinds:
        if isinstance(layer, base) and forward is base.forward:
            own = layer._parameters
            axes = 1 if statistic == "group" else len(layer.normalized_shape)  # type: ignore[arg-type]
            return NormKind(
                statistic,
                1 if statistic == "group" else -1,
                axes,
                scale="weight" if own.get("weight") is not None else None,
                shift="bias" if own.get("bias") is not None else None,
                autocasts=statistic != "rms",
            )
    return None


# --- trying one that is not torch's -----------------------------------------------------------


def _probe(layer: nn.Module, channels: int, kept: int, generator: torch.Generator) -> nn.Module:
    """Return a copy in float64, as wide as the layer was, with random values."""
    probe = copy.deepcopy(layer).cpu().double().eval().requires_grad_(False)
    own: list[dict[str, Any]] = [probe._parameters, probe._buffers]
    for tensors in own:
        for name, value in tensors.items():
            if value is not None and value.shape in {(kept,), (channels,)}:
                values = torch.randn(channels, generator=generator, dtype=torch.float64)
                is_parameter = tensors is probe._parameters
                tensors[name] = nn.Parameter(values, False) if is_parameter else values
    for name in _SIZES:
        size = getattr(probe, name, None)
        if size == kept and not isinstance(size, bool):
            setattr(probe, name, channels)
        elif isinstance(size, tuple | list | torch.Size) and tuple(size) == (kept,):
            setattr(probe, name, (channels,))
    return probe


def _candidates(probe: nn.Module, channels: int) -> Iterator[NormKind]:
    """Yield every kind that the tensors and attributes of a module allow, likely ones first."""
    vectors = [n for n, p in probe.named_parameters(recurse=False) if p.shape == (channels,)]
    if len(vectors) > 2:
        return
    affine: list[tuple[str | None, str | None]] = [(None, None)]
    if len(vectors) == 1:
        affine = [(vectors[0], None), (None, vectors[0])]
    elif vectors:
        affine = [(vectors[0], vectors[1]), (vectors[1], vectors[0])]
    statistics: list[tuple[Statistic, int]] = [
        (statistic, axis)
        for statistic in ("layer", "rms", "deviation", "response")
        for axis in (-1, 1)
    ]
    if isinstance(groups := getattr(probe, "num_groups", None), int) and groups > 0:
        statistics.insert(0, ("group", 1))
    children = dict(probe.named_children())
    after = tuple(name for name in _AFTERWARDS if name in children)
    names = [n for n in EPS_NAMES if isinstance(getattr(probe, n, None), float | int)]
    for (statistic, axis), eps, (scale, shift), offset in product(
        statistics, names, affine, (0, 1)
    ):
        if scale is not None or not offset:
            yield NormKind(statistic, axis, 1, eps, scale, shift, offset, after)


def _inputs(probe: nn.Module, channels: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield values of all shapes that a norm may take, so small too that eps counts."""
    a, b = [size for size in (3, 5, 7) if size != channels][:2]
    shapes = [(2, channels, a, b), (2, a, b, channels), (2, a, channels), (a, channels)]
    shapes.append((2, channels, b))
    values = {
        float(getattr(probe, n)) for n in EPS_NAMES if isinstance(getattr(probe, n, 0), float)
    }
    for shape in shapes:
        x = torch.randn(shape, generator=generator, dtype=torch.float64) + _SHIFT
        yield x
        yield from (x * value**0.5 for value in values if value > 0)


def _explains(kind: NormKind, probe: nn.Module, channels: int, x: Tensor, y: Tensor) -> bool:
    if kind.statistic == "group":
        groups: int = probe.num_groups  # type: ignore[assignment]
        if channels % groups or x.shape[1] != channels:
            return False
        counted = channels // groups
    else:
        counted = x.shape[kind.axis]
    if counted < 2 and kind.statistic == "deviation":
        return False
    if x.ndim != 4 and kind.statistic == "response":
        return True  # what such modules do with tokens is not meant
    try:
        found = compute_norm(probe, kind, x, counted, counted)
    except (RuntimeError, IndexError):  # tensors of that width do not fit that axis
        return False
    return bool((found - y).abs().max() <= _TOLERANCE * y.abs().max())
