"""How large the channels of a network are."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.surgery.channel_weights import ChannelWeights


def group_norms(
    model: nn.Module, groups: ChannelGroups, names: Sequence[str] | None = None
) -> dict[str, Tensor]:
    r"""Return the norm of every channel of every group.

    .. math:: I_k = \sqrt{\frac{1}{n_k} \sum_{w \in \text{channel } k} w^2}

    over all :math:`n_k` tied weights of the channel: rows of the producers, columns of the
    consumers, scales of the norms; no biases, no depthwise weights.

    Args:
        model: The model; its current weights count.
        groups: Its channel groups.
        names: Which groups; None: all.

    Returns:
        Group name -> (C,) float64 on the model's device.

    Source: Fang, Ma, Song, Mi, Wang, 2023, DepGraph: Towards Any Structural Pruning, CVPR,
    arXiv 2301.12900 (group importance).

    >>> import torch
    >>> from lightning_prune.graph.trace import trace_groups
    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
    >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [3.0]]))
    >>> _ = net[2].weight.data.copy_(torch.tensor([[1.0, 3.0]]))
    >>> group_norms(net, trace_groups(net, torch.zeros(1, 1)))["0"].tolist()
    [1.0, 3.0]
    """
    weights = ChannelWeights(model, groups, names)
    return weights.split(weights.norms())
