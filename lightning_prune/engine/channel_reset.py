"""Channels of a live model that are re-initialized while it trains."""

import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.graph.names import modules_by_name
from lightning_prune.observe.usage import ChannelUsage
from lightning_prune.policies.selection.reset_choice import Which, reset_choice
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.reinitialize import (
    ResetType,
    copy_channels,
    cut_originals,
    original_values,
    reset_channels,
)

Originals = dict[str, dict[str, Tensor]]
"""Layer -> the tensors of its channels, on the CPU, as they were when training started."""


def remember_originals(originals: Originals, model: nn.Module, usage: ChannelUsage) -> None:
    """Add the values of tracked layers that are not known yet: a resumed run knows some."""
    for name in usage.outputs:
        if name not in originals:
            originals[name] = original_values(*usage.layer_and_norm(model, name))


def originals_after_cut(
    originals: Originals, model: nn.Module, pruned: PrunedChannels
) -> Originals:
    """Return the original values of the channels that a cut left."""
    modules = modules_by_name(model)
    return {
        name: cut_originals(values, modules[name], pruned.parameters.get(f"{name}.weight"))
        for name, values in originals.items()
    }


def channels_to_reset(
    counts: Mapping[str, Tensor],
    which: Which,
    masked: Mapping[str, Collection[int]],
    only_below: float | None,
) -> dict[str, Tensor]:
    """Return the channels to reset of each layer that has any; see ``reset_choice``.

    >>> channels_to_reset({"a": torch.tensor([2, 0]), "b": torch.tensor([1])}, "unused", {}, None)
    {'a': tensor([1])}
    """
    found = {
        name: reset_choice(count, which, masked.get(name, ()), only_below)
        for name, count in counts.items()
    }
    return {name: channels for name, channels in found.items() if len(channels)}


def reset_layers(
    model: nn.Module,
    usage: ChannelUsage,
    chosen: Mapping[str, Tensor],
    reset_type: ResetType,
    originals: Originals,
    optimizers: Iterable[Optimizer],
    seed: Any,
) -> None:
    """Re-initialize channels, and clear the optimizers' state of their rows.

    Args:
        model: The live model.
        usage: Knows the norm of each layer.
        chosen: Layer -> its channels.
        reset_type: What they become.
        originals: What they were, for ``original``.
        optimizers: Those that train the model.
        seed: Anything that is the same on every process: it and the layer's name seed the draw.
    """
    for name, channels in chosen.items():
        layer, norm = usage.layer_and_norm(model, name)
        # Of its own: every process draws the same, and no other random number changes.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        reset_channels(
            layer,
            channels,
            reset_type,
            norm=norm,
            originals=originals.get(name),
            optimizers=optimizers,
            generator=generator,
        )


def copy_layers(
    model: nn.Module, usage: ChannelUsage, chosen: Mapping[str, Tensor], copies: Iterable[nn.Module]
) -> None:
    """Reset re-initialized channels in copies of the model too, such as averages."""
    for copy in copies:
        for name, channels in chosen.items():
            source, target = usage.layer_and_norm(model, name), usage.layer_and_norm(copy, name)
            copy_channels(channels, source, target)
