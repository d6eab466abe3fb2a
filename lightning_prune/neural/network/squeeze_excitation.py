"""Gates on the channels of a video, frame by frame."""

from torch import Tensor, nn

from lightning_prune.arguments import Count
from lightning_prune.validation import validated


class SqueezeExcitation(nn.Module):
    r"""Scale every channel of every frame by a gate computed from the means of the frame.

    .. math:: y_{ct} = x_{ct} \, \sigma(W_2 \, \mathrm{silu}(W_1 \bar{x}_t + b_1) + b_2)_c

    with :math:`\bar{x}_t` (C,) the means over the pixels of frame t.

    Args:
        channels: Channels C of the input.
        reduction: The hidden layer has ``channels // reduction`` units, at least one.

    Raises:
        ValueError: ``reduction`` is below 1.

    Source: J. Hu, L. Shen, G. Sun, 2018, Squeeze-and-Excitation Networks, arXiv 1709.01507.
    """

    @validated
    def __init__(self, channels: int, reduction: Count = 4) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.reduce = nn.Conv3d(channels, hidden, 1)
        self.act = nn.SiLU()
        self.expand = nn.Conv3d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to the same shape."""
        means = x.mean((3, 4), keepdim=True)
        gates: Tensor = self.expand(self.act(self.reduce(means))).sigmoid()
        return x * gates
