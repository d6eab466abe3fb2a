"""Channels of a feature map in another order, some of them left out."""

from typing import Any

from torch import Tensor, nn

from lightning_prune.graph.labels import TensorLabels, labels_of, set_labels
from lightning_prune.graph.layer_kinds import register


class ChosenChannels(nn.Module):
    """Multiply channels by a matrix of which each row holds a single 1, or none.

    The same as the product, without its MACs.

    >>> import torch
    >>> x = torch.tensor([5.0, 6.0, 7.0]).view(1, 3, 1, 1)
    >>> matrix = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    >>> ChosenChannels()(x, matrix).flatten().tolist()
    [7.0, 0.0]
    """

    def forward(self, x: Tensor, matrix: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) and (out_channels, in_channels) to (B, out_channels, H, W)."""
        return x[:, matrix.argmax(1)] * matrix.sum(1)[:, None, None]


def _join(_module: nn.Module, trace: Any, inputs: Any, output: Tensor) -> None:
    """Columns are the channels that are read, rows those that are given."""
    x, matrix = (labels_of(tensor) for tensor in inputs)
    rows = None if matrix is None else matrix.axes.get(0)
    columns = None if matrix is None else matrix.axes.get(1)
    channels = None if x is None else x.axes.get(1)
    if columns is not None and channels is not None:
        trace.labels.join(channels, columns)
    elif columns is not None:
        trace.labels.pin(columns, "it reads values that no layer makes")
    set_labels(output, None if rows is None else TensorLabels({1: rows}))


register(ChosenChannels, _join)
