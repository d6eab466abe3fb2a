"""Copies of a model that a trial cuts: with scrambled weights, and with shapes alone."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_prune.graph.group import Group
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.cut_run import run_cut
from lightning_prune.surgery.scrambled_copy import scrambled_copy
from lightning_prune.surgery.shapes_only import ShapesOnly
from lightning_prune.surgery.trial_example import smaller, varied_tokens, without_listeners

_HALF = {torch.float16, torch.bfloat16}
Forward = Callable[[nn.Module, Any], Any]


def trial_copy(model: nn.Module, example: Any, forward: Forward) -> tuple[nn.Module, Any]:
    """Return a copy with other weights of which the network still makes numbers, and its input.

    In float32 where the model is in half precision, whose rounding would hide faults; on small
    pictures and varied tokens where it takes them: what is cut shows there too, in less time.

    Args:
        model: The live model.
        example: Its input.
        forward: How to call the model with it.
    """
    half = any(p.dtype in _HALF for p in model.parameters())
    liked = (smaller(example), varied_tokens(example, model), example)
    examples = [one for one in liked if one is not None]
    for dtype in (torch.float32, None) if half else (None,):
        found = scrambled_copy(model, examples, dtype, forward)
        if found is not None:
            return found
    return without_listeners(copy_module(model)).eval(), example


def without_values(
    model: nn.Module, example: Any, forward: Forward, groups: Mapping[str, Group]
) -> tuple[nn.Module, Any] | None:
    """Return a copy that computes shapes only, and its input; None where the model cannot.

    Norms whose kind is found by running them, which takes values, pass on what they are given.

    Args:
        model: The model.
        example: Its input.
        forward: How to call the model with it.
        groups: Its groups: which norms there are.
    """
    try:
        net = copy_module(model).to("meta")
        given = tree_map(lambda v: v.to("meta") if isinstance(v, Tensor) else v, example)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever a user's `to` raises
        return None
    for norm in {norm.layer for group in groups.values() for norm in group.norms}:
        layer = net.get_submodule(norm)
        if not _is_torchs(layer):
            layer.forward = _as_given
    return None if run_cut(net, lambda one: run_shapes(one, given, forward)) else (net, given)


def run_shapes(net: nn.Module, given: Any, forward: Forward) -> Any:
    """Call a copy that computes shapes only."""
    with ShapesOnly():
        return forward(net, given)


def _as_given(x: Tensor, *_others: Any, **_named: Any) -> Tensor:
    return x


def countable(group: Group, model: nn.Module) -> Group:
    """Leave out norms whose kind is found by running them: that takes values."""
    known = tuple(n for n in group.norms if _is_torchs(model.get_submodule(n.layer)))
    return group if len(known) == len(group.norms) else replace(group, norms=known)


def _is_torchs(layer: nn.Module) -> bool:
    return type(layer).__module__.startswith("torch.nn")
