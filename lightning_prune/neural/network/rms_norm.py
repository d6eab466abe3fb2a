"""Root-mean-square normalisation over the channels of a feature map."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from lightning_prune.annotations import AtLeast, Such
from lightning_prune.arguments import Count
from lightning_prune.graph.layer_kinds import passes_on, register
from lightning_prune.neural.network.channel_rms import normalize_channels
from lightning_prune.surgery.cut import Replacement
from lightning_prune.validation import validated


class RMSNorm(nn.Module):
    r"""Divide every position by the root mean square of its channels, scale and shift.

    .. math:: y_c = \frac{x_c}{\sqrt{\frac{1}{C} \sum_k x_k^2 + \varepsilon}} \gamma_c + \beta_c

    Computed in float32, returned in the type of the input.

    Args:
        num_features: Channels C, the second dimension of the input.
        norm_dims: Dimensions that the mean runs over; 1 is that of the channels.
        eps: Added to the mean square.
        affine: Learn gamma and beta. Otherwise gamma stays as it is, at one until a cut of channels
            rescales what is left, and there is no beta.

    Raises:
        ValueError: an argument is out of range.

    Source: B. Zhang, R. Sennrich, 2019, Root Mean Square Layer Normalization, arXiv 1910.07467.

    >>> norm = RMSNorm(2, eps=0.0)
    >>> norm(torch.tensor([[3.0, 4.0]])).detach()  # divided by 3.5355
    tensor([[0.8485, 1.1314]])
    """

    @validated
    def __init__(
        self,
        num_features: Count,
        norm_dims: Annotated[
            Sequence[int],
            Such(lambda d: d and 0 not in d, "the dimensions of the mean, not the batch (0)"),
        ] = (1,),
        eps: Annotated[float, AtLeast(0)] = 1e-4,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.norm_dims = tuple(norm_dims)
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(num_features), requires_grad=affine)
        self.beta = nn.Parameter(torch.zeros(num_features)) if affine else None

    @property
    def num_features(self) -> int:
        """Return the number of channels, from the length of gamma: a cut changes it."""
        return len(self.gamma)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, ...) to the same shape."""
        if self.norm_dims == (1,):
            return normalize_channels(x, self.gamma, self.beta, self.eps)
        shape = (1, -1, *[1] * (x.dim() - 2))
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(self.norm_dims, keepdim=True) + self.eps)
        out = wide * scale * self.gamma.view(shape)
        if self.beta is not None:
            out = out + self.beta.view(shape)
        return out.to(x.dtype)

    # --- what pruning asks ------------------------------------------------------------------

    @property
    def channel_scale(self) -> str | None:
        """Return the name of the scale that is learned for each channel, or None."""
        return None if self.beta is None else "gamma"

    @torch.no_grad()
    def follow_cut(self, replaced: Mapping[str, Replacement]) -> None:
        r"""Divide by the same root mean square as before channels that were zero went.

        With C channels before and C' after: :math:`\gamma' = \gamma \sqrt{C / C'}` and
        :math:`\varepsilon' = \varepsilon C / C'`.
        """
        if "gamma" in replaced and 1 in self.norm_dims:
            gamma = replaced["gamma"]
            growth = len(gamma.old) / len(gamma.new)
            gamma.new.mul_(growth**0.5)
            self.eps *= growth

    def extra_repr(self) -> str:
        """Show the number of channels and the settings."""
        return (
            f"{self.num_features}, norm_dims={self.norm_dims}, eps={self.eps}, "
            f"affine={self.beta is not None}"
        )


register(RMSNorm, passes_on(("gamma", 0), ("beta", 0)))
