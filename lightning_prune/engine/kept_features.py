"""Features of a pruned network beside those of the dense one, channel by channel."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.names import modules_by_name
from lightning_prune.plan import PruningPlan

_MOST = 16


def feature_widths(module: nn.Module, groups: ChannelGroups, most: int = _MOST) -> dict[str, int]:
    """Return layers whose outputs are compared, each with how many channels it has.

    Batch norms where a group has some, else the layers that make its channels. Of many layers some
    are taken, evenly spaced in the order of the network.

    Args:
        module: The network.
        groups: Its channel groups.
        most: How many layers at most.
    """
    modules = modules_by_name(module)
    found: dict[str, int] = {}
    for group in groups.values():
        norms = [m for m in group.members if isinstance(modules[m.layer], _BatchNorm)]
        for member in norms or group.sources:
            width = _width(modules[member.layer])
            if width is not None:
                found[member.layer] = width
    names = [name for name in groups.order if name in found]
    chosen = names[:: -(-len(names) // most)] if names else []
    if names and names[-1] not in chosen:
        chosen.append(names[-1])
    return {name: found[name] for name in chosen}


def kept_channels(
    widths: Mapping[str, int], groups: ChannelGroups, plan: PruningPlan
) -> dict[str, Tensor]:
    """Return which channels of layers' outputs a plan keeps, int64.

    Args:
        widths: Layer -> how many channels it has before the cut.
        groups: The channel groups.
        plan: What is kept.
    """
    kept = {name: torch.ones(width, dtype=torch.bool) for name, width in widths.items()}
    for name in plan.keep:
        mask = plan.mask(name)
        for member in groups[name].members:
            if member.role != "consumer" and member.layer in kept:
                kept[member.layer][member.index] &= mask[member.channel]
    return {name: torch.nonzero(channels).flatten() for name, channels in kept.items()}


def kept_features(
    module: nn.Module, groups: ChannelGroups, plan: PruningPlan, most: int = _MOST
) -> dict[str, Tensor]:
    """Return layers whose outputs are compared, each with the channels of it that a cut keeps.

    The plan says which channel of the dense network each one of the pruned network is, so that
    nothing has to be learnt in between.

    Args:
        module: The dense network, or the masked one.
        groups: Its channel groups.
        plan: What is kept.
        most: How many layers at most.
    """
    kept = kept_channels(feature_widths(module, groups, most), groups, plan)
    device = next(module.parameters()).device
    return {name: index.to(device) for name, index in kept.items()}


def _width(layer: nn.Module) -> int | None:
    for attribute in ("num_features", "out_channels", "out_features"):
        width = getattr(layer, attribute, None)
        if isinstance(width, int):
            return width
    return None


@contextmanager
def recorded(module: nn.Module, layers: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Record what layers give in each pass, channels last; of several runs in a pass the last."""
    outputs: dict[str, Tensor] = {}

    def record(name: str) -> object:
        def hook(layer: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                outputs[name] = output if isinstance(layer, nn.Linear) else output.movedim(1, -1)

        return hook

    modules = modules_by_name(module)
    handles = [modules[n].register_forward_hook(record(n)) for n in layers]  # type: ignore[arg-type]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def feature_loss(
    outputs: Mapping[str, Tensor],
    dense_outputs: Mapping[str, Tensor],
    kept: Mapping[str, Tensor],
    bounded: bool = False,
) -> Tensor:
    """Return the mean over layers of the squared difference, in variances of the dense features.

    Args:
        outputs: Layer -> features of the pruned network, channels last, as ``recorded`` has them.
        dense_outputs: The same of the dense network.
        kept: Layer -> the dense channels that the pruned network has. Layers that a pass did not
            come to are left out.
        bounded: In variances of the pruned network's features where those are larger: a dense
            network that gives almost the same everywhere, as one that is hardly trained, would
            otherwise drown everything else.

    >>> same = {"norm": torch.tensor([[1.0, 3.0]])}
    >>> dense = {"norm": torch.tensor([[1.0, 7.0, 3.0]])}
    >>> feature_loss(same, dense, {"norm": torch.tensor([0, 2])}).item()
    0.0
    """
    losses = []
    for name, index in kept.items():
        if name not in outputs or name not in dense_outputs:
            continue
        own, wanted = outputs[name], dense_outputs[name]
        wanted = wanted.index_select(-1, index)
        variance = _variance(wanted)
        if bounded:
            variance = torch.maximum(variance, _variance(own.detach()))
        losses.append((own - wanted).square().mean() / variance.clamp(min=1e-12))
    return torch.stack(losses).mean() if losses else torch.zeros(())


def _variance(features: Tensor) -> Tensor:
    return (features - features.flatten(0, -2).mean(0)).square().mean()
