"""Inputs, modes and hooks of a copy on which surgery is tried."""

from functools import partial
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


def is_told(listener: Any) -> bool:
    """Return whether an object defines ``on_channels_pruned``, which notifies it of a cut."""
    return callable(getattr(listener, "on_channels_pruned", None))


def without_listeners(net: nn.Module) -> nn.Module:
    """Remove the forward hooks of callbacks that are notified of a cut.

    What they keep per channel is as wide as the live model, and trials must not notify them.

    Args:
        net: A copy of a model; it is changed.
    """
    for module in net.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                # A hook of the model itself may be part of its forward pass.
                if any(is_told(o) and not isinstance(o, nn.Module) for o in _owners(hook)):
                    del hooks[key]
    return net


def _owners(hook: Any) -> list[Any]:
    """List what a hook is bound to: the object of a method, the variables of an inner function."""
    if isinstance(hook, partial):
        return [*_owners(hook.func), *hook.args, *hook.keywords.values()]
    function = getattr(hook, "__func__", hook)
    owners = [hook, getattr(hook, "__self__", None)]
    for cell in getattr(function, "__closure__", None) or ():
        try:
            owners.append(cell.cell_contents)
        except ValueError:  # a variable that has no value yet
            continue
    return owners


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
