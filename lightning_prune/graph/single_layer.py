"""Base of custom layers that are one layer with tensors of its own."""

import torch
from torch import nn

from lightning_prune.graph.group import Member
from lightning_prune.graph.layers import Role


class SingleLayer:
    """What a ``CustomLayer`` without layers inside says: every channel by itself, any width.

    A subclass adds ``proxy`` and ``channel_dims``; the first tensor that ``channel_dims`` lists
    for a role has one position for each channel.
    """

    def channel_dims(self, role: Role) -> list[tuple[str, int]]:
        """List its own tensors that hold channels in this role, each with its dimension."""
        raise NotImplementedError

    def proxy(self) -> nn.Module:
        """Return one ordinary layer of the same channels in and out, for tracing."""
        raise NotImplementedError

    def channel_members(self, role: Role) -> tuple[Member, ...] | str:
        """Return the layer itself."""
        tensor, dim = self.channel_dims(role)[0]
        every = torch.arange(getattr(self, tensor).shape[dim])
        return (Member("", role, every, every),)

    def bundle(self, role: Role) -> int:
        """Return 1: each channel can go by itself."""
        return 1

    def width_step(self, role: Role) -> int:
        """Return 1: any width is possible."""
        return 1

    def mixing_layers(self, role: Role) -> tuple[str, ...]:
        """Return no layer."""
        return ()
