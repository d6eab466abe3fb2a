"""A group norm that gives the same when channels that were zero are gone."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.functional.zero_counting import group_norm_of_kept
from lightning_prune.graph.layer_kinds import passes_on, register


class ZeroAwareGroupNorm(nn.GroupNorm):
    r"""Group norm whose statistics count channels that were cut as the zeros they were.

    .. math:: y_c = \frac{x_c - \mu_g}{\sqrt{\sigma_g^2 + \varepsilon}} \gamma_c + \beta_c, \quad
        \mu_g = \frac{1}{n} \sum x, \quad
        \sigma_g^2 = \frac{1}{n} \Big(\sum (x - \mu_g)^2 + z \mu_g^2\Big)

    over the n values that group g has in the whole layer, z of which belong to channels that were
    cut. An ordinary group norm takes other statistics from fewer channels, and divides other groups
    of them; this one lets any channel go. As long as none has gone it is torch's.

    Args:
        num_groups: Groups of consecutive channels.
        num_channels: Channels of the whole layer, a multiple of the groups.
        eps: Added to the variance.

    Attributes:
        group: (C,) int64, the group of each channel that is left.
        group_size: Channels of each group in the whole layer.

    Source: Y. Wu, K. He, 2018, Group Normalization, arXiv 1803.08494.

    >>> norm = ZeroAwareGroupNorm(1, 4, eps=0.0)
    >>> x = torch.tensor([1.0, 3.0, 0.0, 0.0]).view(1, 4, 1)
    >>> [round(value, 4) for value in norm(x).flatten().tolist()]
    [0.0, 1.633, -0.8165, -0.8165]
    >>> norm.weight, norm.bias = nn.Parameter(norm.weight[:2]), nn.Parameter(norm.bias[:2])
    >>> norm.group = norm.group[:2]
    >>> [round(value, 4) for value in norm(x[:, :2]).flatten().tolist()]
    [0.0, 1.633]
    """

    group: Tensor

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        super().__init__(num_groups, num_channels, eps)
        self.group_size = num_channels // num_groups
        self.register_buffer("group", self._whole())

    def _whole(self) -> Tensor:
        return torch.arange(self.num_groups * self.group_size) // self.group_size

    @property
    def is_whole(self) -> bool:
        """Return whether no channel has gone."""
        return len(self.group) == self.num_groups * self.group_size

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, ...) to the same shape."""
        if self.is_whole:
            return super().forward(input)
        groups, size = self.num_groups, self.group_size
        out = group_norm_of_kept(input, self.group, groups, size, self.weight, self.bias, self.eps)
        return out.to(input.dtype)

    # --- files: as long as no channel has gone they are those of an ordinary group norm ----------

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.is_whole:
            del destination[prefix + "group"]

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        if prefix + "group" not in state_dict:
            self.group = state_dict[prefix + "group"] = self._whole().to(self.group.device)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


register(ZeroAwareGroupNorm, passes_on(("weight", 0), ("bias", 0), ("group", 0)))
