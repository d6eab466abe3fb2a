"""One step of a convolutional gated recurrent unit."""

import torch
from torch import Tensor, nn

from lightning_prune.arguments import Count
from lightning_prune.neural.network.options import Candidate, OddKernel, RecurrentInit
from lightning_prune.neural.network.zero_aware_group_norm import ZeroAwareGroupNorm
from lightning_prune.validation import validated

NORM_GROUPS = 32
"""Groups of the norm; of fewer hidden channels one group for each."""


class ConvGRUCell(nn.Module):
    r"""Convolutional gated recurrent unit, with a norm on what the hidden state contributes.

    .. math::
        (z, r, n) &= U x + N(W h) \\
        h' &= (1 - \sigma(z)) \, h + \sigma(z) \tanh(n + \sigma(r) \, h)

    with U and W convolutions to three times the hidden channels and N a group norm. This is the
    ``fixed`` candidate, that of the published fast cell. With ``standard`` the reset gate acts on
    the recurrent convolution, :math:`\tanh(n_x + \sigma(r) \, n_h)`; with ``missing`` it does
    nothing, :math:`\tanh(n)`, which is how that cell was first published.

    The width of the hidden state is that of the tensors: nothing but the layers knows it.

    Args:
        in_channels: Channels read.
        hidden_channels: Channels of the hidden state; with ``use_layer_norm`` three times this
            number is divisible by min(32, hidden_channels).
        kernel_size: Side of the kernels in pixels, odd.
        use_layer_norm: Normalise the recurrent contribution in min(32, hidden_channels) groups.
        use_depthwise: Depthwise-separable convolutions.
        use_grouped: Convolutions in ``num_groups`` groups.
        num_groups: Groups; divides both numbers of channels.
        candidate: ``fixed``, ``standard`` or ``missing``.
        init: ``orthogonal`` recurrent and Kaiming-uniform input weights, or torch's ``default``.

    Raises:
        ValueError: an argument is out of range, or two do not go together.

    Source: K. Cho et al., 2014, arXiv 1406.1078; N. Ballas, L. Yao, C. Pal, A. Courville, 2016,
    Delving Deeper into Convolutional Networks for Learning Video Representations, arXiv
    1511.06432; A. Saxe, J. McClelland, S. Ganguli, 2013, arXiv 1312.6120 (orthogonal start).
    """

    @validated
    def __init__(
        self,
        in_channels: Count,
        hidden_channels: Count,
        kernel_size: OddKernel = 3,
        *,
        use_layer_norm: bool = True,
        use_depthwise: bool = False,
        use_grouped: bool = False,
        num_groups: Count = 1,
        candidate: Candidate = "fixed",
        init: RecurrentInit = "orthogonal",
    ) -> None:
        super().__init__()
        groups = _groups(in_channels, hidden_channels, use_depthwise, use_grouped, num_groups)
        gates = 3 * hidden_channels
        self.candidate = candidate
        self.conv_x = _convolution(in_channels, gates, kernel_size, use_depthwise, groups, True)
        self.conv_h = _convolution(
            hidden_channels, gates, kernel_size, use_depthwise, groups, False
        )
        self.layer_norm = _group_norm(hidden_channels) if use_layer_norm else nn.Identity()
        if init == "orthogonal":
            for module in self.conv_x.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_uniform_(module.weight, a=5**0.5)
            for module in self.conv_h.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.orthogonal_(module.weight)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the next hidden state (B, hidden, H, W).

        Args:
            x: (B, in_channels, H, W).
            h: (B, hidden, H, W).
        """
        return self.step(self.conv_x(x), h)

    def step(self, gates: Tensor, h: Tensor) -> Tensor:
        """Return the next hidden state from what the input contributes to the gates.

        Args:
            gates: ``conv_x`` of the input, (B, 3 * hidden, H, W).
            h: (B, hidden, H, W).
        """
        recurrent = self.layer_norm(self.conv_h(h))
        zx, rx, nx = gates.chunk(3, dim=1)
        zh, rh, nh = recurrent.chunk(3, dim=1)
        update = torch.sigmoid(zx + zh)
        if self.candidate == "missing":
            new = torch.tanh(nx + nh)
        elif self.candidate == "standard":
            new = torch.tanh(nx + torch.sigmoid(rx + rh) * nh)
        else:
            new = torch.tanh(nx + nh + torch.sigmoid(rx + rh) * h)
        return h + update * (new - h)


def _groups(
    in_channels: int, hidden_channels: int, use_depthwise: bool, use_grouped: bool, num_groups: int
) -> int:
    if min(in_channels, hidden_channels) < 1:
        raise ValueError(f"{in_channels} channels in, {hidden_channels} hidden: pass at least 1")
    if use_depthwise and use_grouped:
        raise ValueError(
            "use_depthwise=True with use_grouped=True: a depthwise convolution has one group per "
            "channel; set one of them to false"
        )
    if not use_grouped:
        return 1
    if num_groups < 1 or in_channels % num_groups or hidden_channels % num_groups:
        raise ValueError(
            f"num_groups={num_groups} does not divide the {in_channels} channels read and the "
            f"{hidden_channels} hidden ones: pass a number that divides both"
        )
    return num_groups


def _convolution(
    channels: int, gates: int, kernel: int, depthwise: bool, groups: int, bias: bool
) -> nn.Module:
    padding = kernel // 2
    if depthwise:
        return nn.Sequential(
            nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels, bias=False),
            nn.Conv2d(channels, gates, 1, bias=bias),
        )
    return nn.Conv2d(channels, gates, kernel, padding=padding, groups=groups, bias=bias)


def _group_norm(hidden_channels: int) -> ZeroAwareGroupNorm:
    groups = min(NORM_GROUPS, hidden_channels)
    if 3 * hidden_channels % groups:
        raise ValueError(
            f"hidden_channels={hidden_channels}: three times it must be divisible by the "
            f"{groups} groups of the norm; pass a multiple of 32, or switch use_layer_norm off"
        )
    return ZeroAwareGroupNorm(groups, 3 * hidden_channels)
