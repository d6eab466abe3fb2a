"""Losses of widths against lstsq from scratch in a network."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.trace import trace_groups
from lightning_prune.policies.selection.repaired_losses import repaired_losses
from lightning_prune.surgery.places import Places
from lightning_prune.surgery.scramble import scramble
from tests.networks import NETWORKS


class Fork(nn.Module):
    """Six channels that two layers read, one of them behind a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.other = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 2, 1)
        self.left, self.right = nn.Conv2d(6, 3, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        read = torch.relu(self.first(x))
        return self.left(read), self.right(torch.cat([self.other(x), read], 1))


def unrepaired(read: np.ndarray, y: np.ndarray, left: list[int]) -> float:
    rows = np.concatenate([read[:, left], np.ones((len(read), 1))], 1)
    solved = np.linalg.lstsq(rows, y, rcond=None)[0]
    return ((y - rows @ solved) ** 2).mean(0).sum() / y.var(0).sum()


def test_the_loss_is_what_both_consumers_cannot_repair():
    net = Fork()
    scramble(net)
    net.double()
    batches = [torch.randn(3, 3, 6, 6, dtype=torch.float64) for _ in range(2)]
    groups = trace_groups(net, batches[0])
    seen = []
    found = repaired_losses(
        net, groups, {"first": (6, 5, 3)}, batches, call, places=Places(9999), ridge=1e-9,
        progress=lambda names: seen.extend(names) or names,
    )["first"]  # fmt: skip
    assert seen == ["first"]
    with torch.no_grad():
        x = torch.cat(batches)
        read = torch.relu(net.first(x))
        both = torch.cat([net.other(x), read], 1)
        patches = nn.functional.unfold(read, 3, padding=1).transpose(1, 2).flatten(0, 1).numpy()
        points = both.movedim(1, -1).flatten(0, 2).numpy()
        outputs = [y.movedim(1, -1).flatten(0, 2).numpy() for y in net(x)]
    for width, loss in zip(found.widths, found.losses, strict=True):
        keep = found.keep(width).tolist()
        wanted = unrepaired(patches, outputs[0], [9 * c + t for c in keep for t in range(9)])
        wanted += unrepaired(points, outputs[1], [0, 1, *(2 + c for c in keep)])
        assert loss == pytest.approx(wanted, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("network", NETWORKS)
def test_losses_grow_as_widths_fall_and_the_network_stays(network: type[nn.Module]):
    torch.manual_seed(0)
    net = network()
    scramble(net)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(4, 3, 8, 8)
    groups = trace_groups(net, x)
    widths = {name: tuple(range(group.channels, 0, -1)) for name, group in groups.items()}
    found = repaired_losses(net, groups, widths, [x], call)
    assert found.keys() == widths.keys()
    for name, own in found.items():
        assert own.losses[0] == 0
        assert list(own.losses) == sorted(own.losses)
        assert [len(own.keep(width)) for width in own.widths] == list(widths[name])
    assert net.training
    assert all(torch.equal(value, before[n]) for n, value in net.state_dict().items())


def test_sums_over_processes_are_those_of_all_batches():
    """Two processes that see the same have the losses of one."""
    net = Fork()
    scramble(net)
    batches = [torch.randn(3, 3, 6, 6)]
    groups = trace_groups(net, batches[0])
    widths = {"first": (6, 3)}
    alone = repaired_losses(net, groups, widths, batches, call)["first"]
    twice = repaired_losses(net, groups, widths, batches, call, total=lambda v: 2 * v)["first"]
    assert alone.losses == pytest.approx(twice.losses)
    assert torch.equal(alone.order, twice.order)


def test_without_a_consumer_that_is_a_matrix_norms_decide():
    """A depthwise convolution and a mean read the channels: nothing can be refitted."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.deep = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4)
            self.last = nn.Conv2d(4, 2, 1, groups=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.deep(self.first(x)))

    net = Own()
    scramble(net)
    x = torch.randn(2, 3, 6, 6)
    groups = trace_groups(net, x)
    (name,) = groups
    channels = groups[name].channels
    found = repaired_losses(net, groups, {name: tuple(range(channels, 0, -1))}, [x], call)[name]
    assert found.losses[0] == 0
    assert list(found.losses) == sorted(found.losses)
    assert 0 < found.losses[-1] < 1
