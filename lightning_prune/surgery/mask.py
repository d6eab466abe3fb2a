"""Holds planned channels at zero while a model trains."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_prune.graph.group import ChannelGroups, Group
from lightning_prune.graph.layers import channel_dims
from lightning_prune.graph.names import modules_by_name
from lightning_prune.plan import PruningPlan

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class ChannelSlice:
    """The removed channels' part of one tensor: ``tensor.index_select(dim, index)``."""

    owner: nn.Module
    layer: str
    tensor: str
    dim: int
    index: Tensor

    @property
    def values(self) -> Tensor:
        """The tensor that is sliced."""
        value = getattr(self.owner, self.tensor)
        assert isinstance(value, Tensor)
        return value


def removed_positions(group: Group, plan: PruningPlan) -> Iterator[tuple[str, str, Tensor]]:
    """Yield (layer, role, positions) of the channels that a plan removes from a group."""
    gone = ~plan.mask(group.name)
    for member in group.members:
        yield member.layer, member.role, member.index[gone[member.channel]]


def channel_slices(
    model: nn.Module, groups: ChannelGroups, plan: PruningPlan
) -> list[ChannelSlice]:
    """List every part of every tensor that belongs to a removed channel, statistics included.

    Raises:
        KeyError: the plan names a group that the model does not have.
        ValueError: the plan was made for another width.
    """
    modules = modules_by_name(model)
    found: dict[tuple[str, str, int], list[Tensor]] = defaultdict(list)
    for name in plan.keep:
        if name not in groups:
            raise KeyError(f"the plan names group {name!r}, which the model does not have")
        group = groups[name]
        if group.channels != plan.channels[name]:
            raise ValueError(
                f"the plan was made for {plan.channels[name]} channels of {name!r}, "
                f"the model has {group.channels}"
            )
        for layer, role, index in removed_positions(group, plan):
            for tensor, dim in channel_dims(modules[layer], role):  # type: ignore[arg-type]
                found[layer, tensor, dim].append(index)
    return [
        ChannelSlice(modules[layer], layer, tensor, dim, torch.cat(index).unique())
        for (layer, tensor, dim), index in found.items()
    ]


class ChannelMask:
    """Zeroes the removed channels of a plan: producers' rows and biases, norms, readers' columns.

    Running statistics are left alone: with the readers' columns at zero the masked network equals
    the cut one whatever the activation does at zero.

    Args:
        model: The live model, or an averaged copy of it.
        groups: Its channel groups.
        plan: What to hold at zero.
    """

    def __init__(self, model: nn.Module, groups: ChannelGroups, plan: PruningPlan) -> None:
        self.plan = plan
        self._slices = [
            part
            for part in channel_slices(model, groups, plan)
            if part.tensor not in _STATISTICS and len(part.index)
        ]
        self._handles: list[RemovableHandle] = []
        self._on_device: dict[tuple[str, str, int], Tensor] = {}

    @torch.no_grad()
    def apply(self) -> None:
        """Zero the removed channels now."""
        for part in self._slices:
            values = part.values
            key = (part.layer, part.tensor, part.dim)
            index = self._on_device.get(key)
            if index is None or index.device != values.device:
                index = self._on_device[key] = part.index.to(values.device)
            values.index_fill_(part.dim, index, 0)

    def hold(self, optimizers: Iterable[Optimizer]) -> None:
        """Zero them now and after every step of these optimizers, until ``release``."""
        self.release()
        self.apply()

        def after_step(*_: Any) -> None:
            self.apply()

        self._handles = [optimizer.register_step_post_hook(after_step) for optimizer in optimizers]

    def release(self) -> None:
        """Stop holding; the zeros stay until training changes them."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @torch.no_grad()
    def violations(self) -> list[str]:
        """Name the tensors in which a removed channel is not zero."""
        return [
            f"{part.layer}.{part.tensor}"
            for part in self._slices
            if bool(part.values.index_select(part.dim, part.index.to(part.values.device)).any())
        ]
