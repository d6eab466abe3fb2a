"""Gives channels of a live layer new weights, and lets its optimizer forget the old ones."""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from lightning_prune.graph.layer_kinds import (
    is_depthwise,
    output_dims,
    rule_of,
    scale_of,
    width_of,
)
from lightning_prune.surgery.cut import Replacement
from lightning_prune.surgery.optimizer import clear_rows
from lightning_prune.validation import validated

ResetType = Literal["random", "original", "zero"]
"""What channels are reset to: Xavier's random weights, those they once had, or zeros."""

_FRESH = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}


def why_not_resettable(layer: nn.Module) -> str | None:
    """Return why the channels of a layer cannot be reset, or None where they can."""
    if not isinstance(layer, _ConvNd | nn.Linear):
        return f"a {type(layer).__name__} makes no channels: name a convolution or linear layer"
    if parametrize.is_parametrized(layer) or hasattr(layer, "weight_g"):
        return "its weight is computed (parametrized): remove the parametrization first"
    if isinstance(layer, _ConvTransposeNd) and layer.groups > 1 and not is_depthwise(layer):
        return f"a transposed convolution with groups={layer.groups} has no row for each channel"
    if not layer.weight.requires_grad:
        return "its weight is frozen: a channel that is reset would never learn"
    return None


def channel_tensors(layer: nn.Module, norm: nn.Module | None) -> dict[str, tuple[Tensor, int]]:
    """Return the tensors that belong to a layer's channels, each with its channel dimension.

    Args:
        layer: A convolution or linear layer.
        norm: The norm of its output, or None; tensors of other shapes than (C,) are left out.

    >>> [(n, d) for n, (_, d) in channel_tensors(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)).items()]
    ... # doctest: +NORMALIZE_WHITESPACE
    [('weight', 0), ('bias', 0), ('norm.weight', 0), ('norm.bias', 0), ('norm.running_mean', 0),
     ('norm.running_var', 0)]
    """
    found = {name: (getattr(layer, name), dim) for name, dim in output_dims(layer)}
    for name in _fresh(norm):
        value = getattr(norm, name, None)
        if isinstance(value, Tensor) and value.shape == (width_of(layer),):
            found[f"norm.{name}"] = (value, 0)
    return {name: (value.detach(), dim) for name, (value, dim) in found.items()}


def _fresh(norm: nn.Module | None) -> Mapping[str, float]:
    """Return what the tensors of a norm are at the start."""
    scale = scale_of(norm) if norm is not None and rule_of(norm) is not None else None
    if norm is None or scale is None:
        return _FRESH
    return {name: float(name == scale) for name, _ in norm.named_parameters(recurse=False)}


def original_values(layer: nn.Module, norm: nn.Module | None = None) -> dict[str, Tensor]:
    """Return copies on the CPU of everything that belongs to a layer's channels, by name.

    What lies on the meta device has no values yet, and stays there.
    """
    return {
        name: value.to(value.device if value.is_meta else "cpu", copy=True)
        for name, (value, _) in channel_tensors(layer, norm).items()
    }


def cut_originals(
    originals: Mapping[str, Tensor], layer: nn.Module, weight: Replacement | None
) -> dict[str, Tensor]:
    """Cut the original values of a layer as the layer was cut.

    Args:
        originals: What ``original_values`` returned before the cut.
        layer: The layer.
        weight: What became of its weight; None: it was not cut.
    """
    if weight is None:
        return dict(originals)
    rows = weight.kept.get(dict(output_dims(layer))["weight"])
    return {
        name: weight.select(value) if name == "weight"
        else value if rows is None else value.index_select(0, rows)
        for name, value in originals.items()
    }  # fmt: skip


@torch.no_grad()
@validated
def reset_channels(
    layer: nn.Module,
    channels: Tensor,
    reset_type: ResetType = "random",
    *,
    norm: nn.Module | None = None,
    originals: Mapping[str, Tensor] | None = None,
    optimizers: Iterable[Optimizer] = (),
    generator: torch.Generator | None = None,
) -> None:
    r"""Reinitialize output channels of a layer.

    ``random`` draws rows from Xavier's uniform distribution with the fans of the whole weight,

    .. math:: w \sim U(-b, b), \quad b = \sqrt{6 / (f_{in} + f_{out})},

    ``zero`` sets them to zero, ``original`` to what they once were. The bias becomes zero and the
    norm of these channels fresh (weight 1, bias 0, mean 0, variance 1), or both what they once
    were. What the optimizers remember of these rows is cleared: momentum would undo the reset.

    Args:
        layer: A convolution or linear layer.
        channels: (n,) int64 output channels.
        reset_type: ``random``, ``original`` or ``zero``.
        norm: The norm of the layer's output, or None.
        originals: What ``original_values`` returned, for ``original``.
        optimizers: Those that train the layer.
        generator: Source of the random rows, on the CPU; None: PyTorch's own.

    Raises:
        ValueError: an unknown type, ``original`` without originals, originals of another width, or
            a layer that cannot be reset.

    Source: X. Glorot, Y. Bengio, 2010, Understanding the difficulty of training deep feedforward
    neural networks, AISTATS; the reset itself: the project's CSP_Reset guide.

    >>> layer = nn.Linear(2, 3)
    >>> reset_channels(layer, torch.tensor([1]), "zero")
    >>> layer.weight[1].tolist(), layer.bias[1].item()
    ([0.0, 0.0], 0.0)
    """
    reason = why_not_resettable(layer)
    if reason is not None:
        raise ValueError(f"the channels of this layer cannot be reset: {reason}")
    if reset_type == "original" and originals is None:
        raise ValueError("reset_type='original' needs originals: keep original_values() at first")
    optimizers = list(optimizers)
    tensors = channel_tensors(layer, norm)
    for name, (value, dim) in tensors.items():
        index = channels.to(value.device)
        rows = value.index_select(dim, index)
        known = None if reset_type != "original" else (originals or {}).get(name)
        if known is not None:
            if known.shape != value.shape:
                raise ValueError(
                    f"the original {name} is of shape {tuple(known.shape)}, the layer's of shape "
                    f"{tuple(value.shape)}: originals follow a cut by cut_originals"
                )
            rows.copy_(known.index_select(dim, channels.cpu()))
        elif name == "weight" and reset_type == "random":
            rows.copy_(_xavier(value, dim, channels, generator))
        elif name == "weight":
            rows.zero_()
        else:
            kind = name.removeprefix("norm.")
            rows.fill_(_fresh(norm)[kind] if name.startswith("norm.") else 0.0)
        value.index_copy_(dim, index, rows)
    for owner, prefix in ((layer, ""), (norm, "norm.")):
        for name, parameter in owner.named_parameters(recurse=False) if owner else ():
            if prefix + name in tensors:
                clear_rows(optimizers, parameter, tensors[prefix + name][1], channels)


@torch.no_grad()
def copy_channels(
    channels: Tensor,
    source: tuple[nn.Module, nn.Module | None],
    target: tuple[nn.Module, nn.Module | None],
) -> None:
    """Copy channels from a layer and its norm to those of a copy of the model.

    Args:
        channels: (n,) int64 output channels.
        source: Layer and norm that are read.
        target: Layer and norm of the same shapes that are written.
    """
    theirs = channel_tensors(*target)
    for name, (value, dim) in channel_tensors(*source).items():
        copy = theirs[name][0]
        rows = value.index_select(dim, channels.to(value.device))
        copy.index_copy_(dim, channels.to(copy.device), rows.to(copy))


def _xavier(weight: Tensor, dim: int, rows: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw rows on the CPU: every rank and every device gets the same."""
    # The whole weight is drawn: its fans are meant, not those of the rows.
    fresh = torch.empty(weight.shape, dtype=torch.float32)
    return nn.init.xavier_uniform_(fresh, generator=generator).index_select(dim, rows.cpu())
