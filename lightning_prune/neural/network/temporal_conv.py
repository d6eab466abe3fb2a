"""The learnable convolution over time that every pixel of the stimulus goes through."""

import torch
from torch import Tensor, nn

from lightning_prune.arguments import Count
from lightning_prune.neural.network.options import FrontendInit
from lightning_prune.neural.network.temporal_filters import TemporalFilters
from lightning_prune.validation import validated


def gaussian_derivatives(taps: int, count: int) -> Tensor:
    r"""Return a Gaussian over time and its derivatives, each with sum of squares 1.

    .. math:: f_n(t) \propto (-1)^n \mathrm{He}_n(t / s) \, e^{-t^2 / 2 s^2}, \quad
        s = \text{taps} / 6

    with t the taps counted from their middle and He the Hermite polynomials.

    Args:
        taps: Length in frames.
        count: Number of filters; filter n is the n-th derivative.

    Returns:
        (count, taps).

    Source: J. J. Koenderink, A. J. van Doorn, 1987, Representation of local geometry in the visual
    system, DOI 10.1007/BF00318371.

    >>> gaussian_derivatives(5, 2)
    tensor([[ 0.0461,  0.4001,  0.8220,  0.4001,  0.0461],
            [ 0.1589,  0.6890, -0.0000, -0.6890, -0.1589]])
    """
    time = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / (taps / 6)
    polynomials = [torch.ones_like(time), -time]
    for n in range(1, count):
        polynomials.append(-time * polynomials[n] - n * polynomials[n - 1])
    filters = torch.stack(polynomials[:count]) * torch.exp(-time.square() / 2)
    # An odd derivative over a single tap is zero.
    lengths = filters.norm(dim=1, keepdim=True).clamp_min(1e-12)
    normed: Tensor = (filters / lengths).float()
    return normed


class TemporalConv(nn.Module):
    """Filter every pixel over time with the same few kernels; no padding, no bias.

    Args:
        kernel_size: Taps in frames.
        num_channels: Filters.
        init: ``gaussian_derivatives``, or torch's ``default``.

    Raises:
        ValueError: an argument is out of range.
    """

    @validated
    def __init__(
        self,
        kernel_size: Count = 16,
        num_channels: Count = 4,
        init: FrontendInit = "gaussian_derivatives",
    ) -> None:
        super().__init__()
        self.conv = TemporalFilters(num_channels, kernel_size)
        if init == "gaussian_derivatives":
            filters = gaussian_derivatives(kernel_size, num_channels)
            self.conv.weight.data.copy_(filters.view_as(self.conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to (B, C * num_channels, T - kernel_size + 1, H, W).

        Raises:
            ValueError: there are fewer frames than taps.
        """
        taps = self.conv.kernel_size[0]
        if x.shape[2] < taps:
            raise ValueError(
                f"a stimulus of {x.shape[2]} frames is shorter than the {taps} taps of the "
                "temporal convolution: pass longer windows or lower frontend.kernel_size"
            )
        if x.shape[1] == 1:
            out: Tensor = self.conv(x)
            return out
        # Every channel by itself with the same kernels.
        batch, channels = x.shape[:2]
        single: Tensor = self.conv(x.reshape(batch * channels, 1, *x.shape[2:]))
        return single.reshape(batch, -1, *single.shape[2:])
