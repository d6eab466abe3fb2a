"""Finds the channel groups of a network that can be cut, which a trial has shown."""

from collections.abc import Callable
from typing import Any

from torch import nn

from lightning_prune.graph.group import Attention, ChannelGroups, Norms
from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.trial_cut import try_groups


def build_groups(
    model: nn.Module,
    example_input: Any,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    step: Callable[[nn.Module], Any] | None = None,
    notify: Callable[[str], None] | None = None,
    norms: Norms = "exact",
    attention: Attention = "heads",
    attributes: bool = True,
) -> ChannelGroups:
    """Find the channel groups of a network: traced, then masked and cut on a copy.

    What the trace takes for a group and cannot be cut (heads of attention cut across, a size that
    is written into the forward pass, a head that only training uses) is in ``refused`` with the
    reason. The model is left as it was: mode, gradients, requires_grad, statistics, random state.

    Args:
        model: Any network of convolutions, linear layers and norms; frozen layers included.
        example_input: A tensor, or a tuple or dict of arguments.
        forward: How to call the model, ``forward(model, example_input)``; None for the plain call.
        step: What training does with the model besides, on a copy; see ``try_groups``.
        notify: Called with a line on what is tried, where that takes long.
        norms: "exact": layer, group and RMS norms count channels that are cut as the zeros that
            they were, so that the cut model gives what the masked one gave; "plain": they take
            statistics of the channels that are left, which changes the outputs.
        attention: "heads": whole heads are a group; "width": the same channels of every head are;
            "both": heads, and the width of those that stay. Where scores are divided by the root
            of the width that is left, queries are scaled so that they stay what they were.
        attributes: Let a cut change numbers that modules hold (``num_heads``, the sizes of a
            split); False: channels that need it are refused.

    Raises:
        ValueError: the network cannot be traced, or ``norms`` or ``attention`` is none of these.

    Source: G. Fang, X. Ma, M. Song, M. B. Mi, X. Wang, 2023, DepGraph: Towards Any Structural
    Pruning, CVPR, arXiv 2301.12900 (through torch-pruning's dependency graph).

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> groups = build_groups(net, torch.zeros(1, 3, 8, 8))
    >>> [(g.name, g.channels, g.layers("consumer")) for g in groups.values()]
    [('0', 8, ('3',))]
    >>> groups.refused
    {'3': 'its channels reach the output of the model'}
    """
    traced = trace_groups(model, example_input, forward, step, notify, attention)
    traced = traced.with_norms(norms)
    return try_groups(model, example_input, traced, forward, step, notify, attributes=attributes)[0]
