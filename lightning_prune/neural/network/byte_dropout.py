"""Dropout that draws few random numbers."""

import torch
from torch import Tensor, nn


class ByteDropout(nn.Dropout):
    """Dropout whose choices on a CPU are two bytes of a random number each.

    Torch draws a number of its own for every element, which there costs more than the convolutions
    around it. The probability is rounded to a multiple of 1/65536, the scale follows it.

    Args:
        p: Probability of an element to become zero, 0 to below 1.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map any shape to itself."""
        if not self.training or self.p == 0:
            return input
        if input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        return input * keep_mask(input, self.p)


@torch.no_grad()
def keep_mask(x: Tensor, p: float) -> Tensor:
    """Return 0 where an element of ``x`` is dropped, 1 / (1 - p) where it stays, laid out as x.

    >>> _ = torch.manual_seed(0)
    >>> keep_mask(torch.zeros(6), 0.5)
    tensor([0., 0., 2., 0., 0., 0.])
    """
    dropped = min(round(p * 65536), 65535)
    numbers = torch.empty((x.numel() + 3) // 4, dtype=torch.int64)
    pieces = numbers.random_(-(2**63), None).view(torch.int16)[: x.numel()]
    mask = torch.empty_like(x)
    flat = mask.as_strided((x.numel(),), (1,))
    torch.ge(pieces, dropped - 32768, out=flat)
    return mask.mul_(65536 / (65536 - dropped))
