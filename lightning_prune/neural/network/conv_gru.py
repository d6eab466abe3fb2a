"""A convolutional gated recurrent unit over the frames of a video."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from lightning_prune.annotations import Above
from lightning_prune.neural.network.chosen_channels import ChosenChannels
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
        self.choose = ChosenChannels()
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
            h = h + self.choose(x[:, :, -1], self.residual).to(h.dtype)
        return h
