"""Network slimming: a penalty on the scales of batch norms."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from lightning_prune.graph.group import Group
from lightning_prune.policies.criteria.group_scores import norm_members
from lightning_prune.policies.penalties.channel_penalty import ChannelPenalty
from lightning_prune.surgery.channel_weights import ChannelWeights


class BNScalePenalty(ChannelPenalty):
    r"""Push the scales :math:`\gamma` of batch norms towards zero, each channel's by itself.

    .. math:: g \mathrel{+}= \lambda \, \mathrm{sign}(\gamma_k)
        \qquad \text{or, as a group lasso,} \qquad
        g \mathrel{+}= \lambda \, \gamma_k / \sqrt{m_k + 10^{-9}}

    with the strength :math:`\lambda` and the mean :math:`m_k` of the squared scales of channel k
    over the group's batch norms: the first is an L1 penalty, the second one on the norm of the
    scales that are tied in a group.

    Args:
        group_lasso: The second form.

    Source: Liu, Li, Shen, Huang, Yan, Zhang, 2017, Learning Efficient Convolutional Networks
    through Network Slimming, ICCV, arXiv 1708.06519; the group form as in torch-pruning's
    ``BNScalePruner(group_lasso=True)``.
    """

    batch_norms_only = True

    def __init__(self, group_lasso: bool = False) -> None:
        self.group_lasso = group_lasso

    def add_to_gradients(
        self,
        weights: ChannelWeights,
        base: Tensor,
        active: Tensor | None,
        parameters: Collection[int] | None,
    ) -> None:
        """Add the gradient of the penalty."""
        if active is not None:
            base = base.masked_fill(~active, 0)
        if self.group_lasso:
            strength = base * torch.rsqrt(weights.norms().square() + 1e-9)
            weights.add_to_gradients(strength, parameters)
        else:
            weights.add_to_gradients(base, parameters, sign=True)

    def why_ineffective(self, model: nn.Module, group: Group) -> str | None:
        """Return that a group has no batch norm, or None."""
        return None if norm_members(model, group) else "it has no BatchNorm with a scale"
