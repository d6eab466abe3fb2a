"""The weights of a channel: its rows in a layer's tensors, and sums of them over a group."""

from torch import Tensor, nn

from lightning_prune.graph.group import Member
from lightning_prune.graph.layers import Role, channel_dims


def channel_dim(layer: nn.Module, role: Role = "producer", tensor: str = "weight") -> int:
    """Return the dimension of a layer's tensor that holds the channels.

    >>> channel_dim(nn.ConvTranspose2d(3, 8, 1)), channel_dim(nn.Linear(3, 8), "consumer")
    (1, 1)
    """
    return dict(channel_dims(layer, role))[tensor]


def channel_rows(values: Tensor, dim: int) -> Tensor:
    """Return what a tensor holds of each channel as one row, (n, m); m is 1 for a bias.

    >>> import torch
    >>> channel_rows(torch.arange(6).view(1, 2, 3), 1).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    return values.movedim(dim, 0).flatten(1) if values.dim() > 1 else values[:, None]


def weight_rows(layer: nn.Module, role: Role = "producer") -> Tensor:
    """Return the weights of each of a layer's channels as one row, (n, m)."""
    return channel_rows(layer.get_parameter("weight"), channel_dim(layer, role))


def add_to_channels(total: Tensor, values: Tensor, member: Member) -> Tensor:
    """Add what belongs to a layer's positions to the channels of its group, in place.

    Args:
        total: (C, ...) sums over the layers of a group.
        values: (n, ...) one for each position in the layer's channel dimension.
        member: The layer's part in the group.

    Returns:
        ``total``.

    >>> import torch
    >>> twice = Member("fc", "consumer", torch.arange(4), torch.tensor([0, 0, 1, 1]))
    >>> add_to_channels(torch.zeros(2), torch.tensor([1.0, 2.0, 3.0, 4.0]), twice).tolist()
    [3.0, 7.0]
    """
    index, channel = member.index.to(values.device), member.channel.to(total.device)
    return total.index_add_(0, channel, values[index])
