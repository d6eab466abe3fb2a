"""The weights of a channel: its rows in a layer's tensors, and sums of them over a group."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lightning_prune.graph.group import Member

_MATRIX = 2


def channel_rows(values: Tensor, dim: int) -> Tensor:
    """Return what a tensor holds of each channel as one row, (n, m); m is 1 for a bias.

    >>> import torch
    >>> channel_rows(torch.arange(6).view(1, 2, 3), 1).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    return values.movedim(dim, 0).flatten(1) if values.dim() > 1 else values[:, None]


def weights_of(layer: nn.Module, member: Member) -> Iterator[tuple[str, int]]:
    """Yield those of a member's tensors that are weights: parameters of two dimensions or more.

    >>> import torch
    >>> dims = (("weight", 0), ("bias", 0))
    >>> member = Member("fc", "producer", torch.arange(2), torch.arange(2), dims)
    >>> list(weights_of(nn.Linear(3, 2), member))
    [('weight', 0)]
    """
    for name, dim in member.dims:
        value = layer._parameters.get(name)
        if value is not None and value.dim() >= _MATRIX:
            yield name, dim


def weight_rows(layer: nn.Module, member: Member) -> Tensor:
    """Return the weights at each of a member's positions as one row, (n, m).

    Those of several tensors stand side by side; of none, m is 0.

    >>> import torch
    >>> layer = nn.Linear(3, 2)
    >>> _ = layer.weight.data.copy_(torch.arange(6).view(2, 3))
    >>> one = torch.tensor([2])
    >>> weight_rows(layer, Member("fc", "consumer", one, one, (("weight", 1),))).tolist()
    [[2.0, 5.0]]
    """
    rows = []
    for name, dim in weights_of(layer, member):
        values = channel_rows(layer.get_parameter(name), dim)
        rows.append(values[member.index.to(values.device)])
    return torch.cat(rows, 1) if rows else torch.zeros(len(member.index), 0)


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
