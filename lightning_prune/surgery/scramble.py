"""Weights that hide no fault, for a copy on which surgery is tried."""

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from lightning_prune.graph.names import plain_name


@torch.no_grad()
def scramble(model: nn.Module, seed: int = 0, gentle: bool = False) -> None:
    """Fill a model with weights that hide no fault: nothing zero or trivial, attention not flat.

    Branches that start at zero, layer scales of 1e-6, norms of ones and attention of small weights
    would let a wrong cut pass. Weights of layers become normal with variance 2 / fan-in, vectors
    uniform in [0.5, 1.5], biases and means small, variances positive.

    Args:
        model: The model, a copy; changed in place.
        seed: Seed of the values.
        gentle: Multiply what is there by values near 1 instead: where a network computes NaN or
            infinity from others.
    """
    generator = torch.Generator().manual_seed(seed)
    seen: set[int] = set()
    for module in model.modules():
        tensors = [*module._parameters.items(), *module._buffers.items()]
        for name, tensor in tensors:
            if tensor is None or id(tensor) in seen or not tensor.is_floating_point():
                continue
            seen.add(id(tensor))
            values = _values(module, plain_name(name), tensor, generator, gentle)
            if values is not None:
                tensor.copy_(values.to(tensor))


def _values(
    module: nn.Module, name: str, tensor: Tensor, generator: torch.Generator, gentle: bool
) -> Tensor | None:
    """Return the new values of a parameter or buffer, None where it stays."""

    def normal() -> Tensor:
        return torch.randn(tensor.shape, generator=generator)

    def near_one() -> Tensor:
        return torch.rand(tensor.shape, generator=generator).add_(0.5)

    if name in module._buffers:
        # Other buffers (tables of positions, masks, anchors) mean something.
        if name == "running_var":
            return near_one()
        return normal() * 0.2 if name == "running_mean" else None
    if gentle:
        return tensor.float().cpu() * near_one() + normal() * 0.01
    if "bias" in name and tensor.ndim <= 1:
        return normal() * 0.2
    if tensor.ndim <= 1 or isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm):
        return near_one()
    if isinstance(module, nn.Embedding) or tensor.shape[0] == 1:
        return normal()
    fan_in: int = tensor[0].numel()
    if isinstance(module, _ConvNd) and module.transposed:
        fan_in = tensor[:, 0].numel()
    return normal().mul_(math.sqrt(2 / max(1, fan_in)))
