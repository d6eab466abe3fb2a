"""The Fisher criterion: the channels whose removal changes the loss of single batches most stay."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_prune.graph.channel_rows import add_to_channels, channel_rows
from lightning_prune.graph.group import ChannelGroups, Group
from lightning_prune.graph.names import modules_by_name
from lightning_prune.policies.criteria.criterion import Criterion, Evidence


class Fisher(Criterion):
    r"""Keep the channels whose removal changes the loss of single batches most.

    .. math:: I_k = \sqrt{\sum_b \Big( \sum_t \Big| \sum_{w \in t[k]} w \cdot
        \frac{\partial L_b}{\partial w} \Big| \Big)^2}

    over batches b and the tensors t that are tied to channel k: rows, biases, scales and shifts
    of norms, columns of consumers. Squared batch by batch, changes that cancel over the data count;
    at a minimum of the loss the mean gradient of a first-order criterion says nothing.

    Source: Theis, Korshunova, Tejani, Huszar, 2018, Faster Gaze Prediction with Dense Networks
    and Fisher Pruning, arXiv 1801.05787; Liu et al., 2021, Group Fisher Pruning for Practical
    Network Compression, ICML, arXiv 2108.00708.
    """

    needs = frozenset({"batch_gradients"})

    def __init__(self) -> None:
        self._squares: dict[str, Tensor] = {}

    def start(self) -> None:
        """Clear all batches."""
        self._squares = {}

    @torch.no_grad()
    def add_batch(self, model: nn.Module, groups: ChannelGroups, names: Sequence[str]) -> None:
        """Add a batch whose gradients are in the parameters' ``.grad``."""
        modules = modules_by_name(model)
        for name in names:
            change = _change(modules, groups[name]).square()
            seen = self._squares.get(name)
            self._squares[name] = change if seen is None else seen + change

    @property
    def sums(self) -> dict[str, Tensor]:
        """What the batches add up to, group by group, to be summed over processes."""
        return self._squares

    def importance(self, evidence: Evidence) -> Tensor:
        """Return by how much each channel changes the loss of a batch, (C,).

        Raises:
            ValueError: no batch was added.
        """
        if evidence.group.name not in self._squares:
            raise ValueError(
                "Fisher has seen no batch: call start(), then add_batch(...) after each backward "
                "pass; ChannelMasker does"
            )
        return self._squares[evidence.group.name].sqrt().double().cpu()


def _change(modules: dict[str, nn.Module], group: Group) -> Tensor:
    """Return the change of the loss that each channel stands for, to first order, (C,)."""
    total: Tensor | None = None
    for member in group.members:
        layer = modules[member.layer]
        for name, dim in member.dims:
            value = layer._parameters.get(name)
            if value is None or value.grad is None:
                continue
            product = value * value.grad
            # Half precision is too coarse for sums of products; double stays what it is.
            product = product.to(torch.promote_types(product.dtype, torch.float32))
            change = channel_rows(product, dim).sum(1).abs()
            if total is None:
                total = change.new_zeros(group.channels)
            add_to_channels(total, change, member)
    return torch.zeros(group.channels) if total is None else total
