"""A convolutional gated recurrent unit over the frames of a video."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from lightning_prune.annotations import Above
from lightning_prune.graph.group import Member
from lightning_prune.graph.layers import Role
from lightning_prune.neural.network.conv_gru_cell import ConvGRUCell
from lightning_prune.validation import validated


class ConvGRU(nn.Module):
    """Run a ``ConvGRUCell`` over time and return the last hidden state.

    Args:
        in_channels: Channels read.
        hidden_channels: Channels of the hidden state.
        kernel_size: Side of the kernels in pixels, odd.
        learnable_h0: Learn the first hidden state, one number per channel; otherwise it is zero.
        use_residual: Add the last input to the last state; needs as many channels in as hidden.
        grad_clip_val: Clamp the hidden state to +- this value after each step, in training only.
            It clips no gradient: the Trainer's ``gradient_clip_val`` does. None: never.
        **cell: Further arguments of ``ConvGRUCell``.

    Raises:
        ValueError: an argument is out of range, or two do not go together.
    """

    @validated
    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int = 3,
        *,
        learnable_h0: bool = True,
        use_residual: bool = False,
        grad_clip_val: Annotated[float | None, Above(0)] = None,
        **cell: Any,
    ) -> None:
        super().__init__()
        if use_residual and in_channels != hidden_channels:
            raise ValueError(
                f"use_residual=True adds the input ({in_channels} channels) to the hidden state "
                f"({hidden_channels}): make them equal, or set use_residual to false"
            )
        self.cell = ConvGRUCell(in_channels, hidden_channels, kernel_size, **cell)
        self.h0 = nn.Parameter(torch.zeros(1, hidden_channels, 1, 1)) if learnable_h0 else None
        # Which input each hidden channel adds: a matrix, so that both sides can be cut.
        self.residual = (
            nn.Parameter(torch.eye(hidden_channels), requires_grad=False) if use_residual else None
        )
        self.grad_clip_val = grad_clip_val

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, T, H, W) to the last hidden state (B, hidden, H, W)."""
        batch, _, frames, height, width = x.shape
        # What the input contributes depends on no hidden state: one call for all frames.
        gates = self.cell.conv_x(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, frames))
        h: Tensor
        if self.h0 is None:
            h = gates.new_zeros(batch, gates.shape[2] // 3, height, width)
        else:
            h = self.h0.expand(batch, -1, height, width)
        for frame in gates.unbind(1):
            h = self.cell.step(frame, h)
            if self.grad_clip_val is not None and self.training:
                h = h.clamp(-self.grad_clip_val, self.grad_clip_val)
        if self.residual is not None:
            # Each row holds a single 1, or none where that input was cut.
            added = x[:, self.residual.argmax(1), -1] * self.residual.sum(1)[:, None, None]
            h = h + added.to(h.dtype)
        return h

    # --- what pruning asks ------------------------------------------------------------------

    def proxy(self) -> nn.Module:
        """Return a convolution from the input to the hidden channels."""
        return _LastState(_main(self.cell.conv_x, 0).in_channels, self._hidden, 1)

    @property
    def _hidden(self) -> int:
        return _main(self.cell.conv_h, -1).out_channels // 3

    def channel_dims(self, role: Role) -> list[tuple[str, int]]:
        """List the first hidden state and the matrix of the residual connection."""
        if role == "consumer":
            return [] if self.residual is None else [("residual", 1)]
        own = [] if self.h0 is None else [("h0", 1)]
        return own if self.residual is None else [*own, ("residual", 0)]

    def channel_members(self, role: Role) -> tuple[Member, ...] | str:
        """List the rows of all three gates, the columns that read the state, norm and first state.

        The activation of a hidden channel is read where the block gives its last state.
        """
        if role == "consumer":
            groups = _main(self.cell.conv_x, -1).groups
            if groups > 1:
                return f"its input convolution has {groups} groups that share no inputs"
            inputs = torch.arange(_main(self.cell.conv_x, 0).in_channels)
            return (*_columns("cell.conv_x", self.cell.conv_x, inputs), _itself(role, inputs))
        hidden, gates = torch.arange(self._hidden), torch.arange(3 * self._hidden)
        channel = gates % self._hidden
        members = [
            Member(_last("cell.conv_x", self.cell.conv_x), "producer", gates, channel, shows=False),
            Member(_last("cell.conv_h", self.cell.conv_h), "producer", gates, channel, shows=False),
            _itself("carrier", hidden, shows=True),
            *_columns("cell.conv_h", self.cell.conv_h, hidden),
        ]
        if isinstance(self.cell.layer_norm, nn.GroupNorm):
            members.append(Member("cell.layer_norm", "carrier", gates, channel))
        return tuple(members)

    def bundle(self, role: Role) -> int:
        """Return the number of groups of the recurrent convolution."""
        return 1 if role == "consumer" else _main(self.cell.conv_h, -1).groups

    def width_step(self, role: Role) -> int:
        """Return 1: any width is possible."""
        return 1

    def mixing_layers(self, role: Role) -> tuple[str, ...]:
        """Return no layer: the norm counts what was cut as zeros."""
        return ()


class _LastState(nn.Conv2d):
    """Stands for the block while a model is traced: frames (B, C, T, H, W) become one state."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.mean(2))


def _main(convolution: nn.Module, place: int) -> nn.Conv2d:
    """Return the convolution, or the first or last of a depthwise-separable pair."""
    found = convolution[place] if isinstance(convolution, nn.Sequential) else convolution
    assert isinstance(found, nn.Conv2d)
    return found


def _last(name: str, convolution: nn.Module) -> str:
    return f"{name}.1" if isinstance(convolution, nn.Sequential) else name


def _columns(name: str, convolution: nn.Module, channels: Tensor) -> list[Member]:
    """List what of a convolution reads channels."""
    if isinstance(convolution, nn.Sequential):
        return [
            Member(f"{name}.0", "carrier", channels, channels),
            Member(f"{name}.1", "consumer", channels, channels),
        ]
    # Of several groups each has the same places among its own columns.
    own = channels[: _main(convolution, 0).weight.shape[1]]
    return [Member(name, "consumer", own, own)]


def _itself(role: Role, channels: Tensor, shows: bool | None = None) -> Member:
    return Member("", role, channels, channels, shows=shows)
