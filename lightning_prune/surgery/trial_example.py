"""Inputs, modes and hooks of a copy on which surgery is tried."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

_PICTURE = 4  # axes of a batch of pictures
_SMALLEST, _STEP = 128, 32


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


def smaller(example: Any) -> Any | None:
    """Return an example with smaller pictures, for trials that cost less; None: they are small.

    Sides are divided by one number, so that the longest has at least 128 pixels and all stay
    multiples of 32: what most networks that take pictures of any size ask for. Whether the network
    takes them has to be tried.

    Args:
        example: A tensor, or a tuple or dict of arguments; floating-point tensors (B, C, H, W) are
            pictures, and other tensors stay as they are.

    >>> smaller(torch.zeros(1, 3, 640, 480)).shape, smaller(torch.zeros(1, 3, 224, 224))
    (torch.Size([1, 3, 128, 96]), None)
    """
    pictures = [leaf for leaf in tree_leaves(example) if _is_picture(leaf)]
    sides = {side for picture in pictures for side in picture.shape[2:]}
    if not sides:
        return None
    most = max(sides) // _SMALLEST
    by = next((n for n in range(most, 1, -1) if all(s % (_STEP * n) == 0 for s in sides)), 1)
    if by == 1:
        return None

    def shrink(value: Any) -> Any:
        if not _is_picture(value):
            return value
        return value[..., : value.shape[2] // by, : value.shape[3] // by].contiguous()

    return tree_map(shrink, example)


def _is_picture(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == _PICTURE and value.is_floating_point()
