"""Inputs and modes of a copy on which surgery is tried."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map


def in_training(net: nn.Module) -> nn.Module:
    """Set training mode; norms that would wait for other processes stay in eval mode."""
    net.train()
    for module in net.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.eval()
    return net


def cast(example: Any, dtype: torch.dtype) -> Any:
    """Convert the floating-point tensors of an example."""
    return tree_map(
        lambda v: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v, example
    )


def varied_tokens(example: Any, net: nn.Module) -> Any | None:
    """Return an example of many tokens instead of one, which would make attention flat."""
    tables = [m.num_embeddings for m in net.modules() if isinstance(m, nn.Embedding)]
    constant = [
        leaf
        for leaf in tree_leaves(example)
        if isinstance(leaf, Tensor) and leaf.dtype == torch.int64 and leaf.ndim > 1
        and leaf.numel() > 1 and bool((leaf == leaf.flatten()[0]).all())
    ]  # fmt: skip
    if not tables or not constant:
        return None
    generator = torch.Generator().manual_seed(0)

    def vary(value: Any) -> Any:
        if not any(value is leaf for leaf in constant):
            return value
        return torch.randint(min(tables), value.shape, generator=generator).to(value)

    return tree_map(vary, example)
