import pytest
import torch
from torch import nn

from lightning_prune.graph.trace import trace_groups
from lightning_prune.policies.criteria.criterion import Evidence
from lightning_prune.policies.criteria.fisher import Fisher
from lightning_prune.policies.criteria.mac_aware import MacAware
from tests.networks import Chain, Residual


def batches() -> list[torch.Tensor]:
    torch.manual_seed(3)
    return [torch.randn(4, 3, 8, 8) for _ in range(3)]


def fed(net: nn.Module, criterion: Fisher) -> Fisher:
    groups = trace_groups(net, batches()[0])
    for batch in batches():
        net.zero_grad()
        net(batch).square().mean().backward()
        criterion.add_batch(net, groups, tuple(groups))
    return criterion


def test_a_single_layer_by_hand() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    data = [torch.randn(5, 3) for _ in range(2)]
    groups = trace_groups(net, data[0])
    criterion = Fisher()
    wanted = torch.zeros(4).double()
    for x in data:
        net.zero_grad()
        net(x).square().mean().backward()
        criterion.add_batch(net, groups, ["0"])
        first, last = net[0], net[2]
        for c in range(4):
            rows = first.weight.detach(), last.weight.detach(), first.bias.detach()
            change = abs(float((rows[0][c] * first.weight.grad[c]).sum()))
            change += abs(float(rows[2][c] * first.bias.grad[c]))
            change += abs(float((rows[1][:, c] * last.weight.grad[:, c]).sum()))
            wanted[c] += change**2
    found = criterion.importance(Evidence(net, groups["0"]))
    torch.testing.assert_close(found, wanted.sqrt(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("network", [Chain, Residual])
def test_a_channel_that_nothing_reads_does_not_matter(network: type) -> None:
    torch.manual_seed(0)
    net = network()
    groups = trace_groups(net, batches()[0])
    name = next(iter(groups))
    with torch.no_grad():
        for member in groups[name].members:
            if member.role == "consumer":
                net.get_submodule(member.layer).weight[:, member.index[member.channel == 2]] = 0
    found = fed(net, Fisher()).importance(Evidence(net, groups[name]))
    assert found[2] == 0
    assert (found > 0).sum() > len(found) / 2


def test_changes_that_cancel_over_batches_count() -> None:
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    nn.init.ones_(net[0].weight)
    nn.init.ones_(net[1].weight)
    x = torch.ones(1, 1)
    groups, criterion = trace_groups(net, x), Fisher()
    for sign in (1.0, -1.0):
        net.zero_grad()
        (sign * net(x)).sum().backward()
        criterion.add_batch(net, groups, ["0"])
    assert (criterion.importance(Evidence(net, groups["0"])) > 0).all()
    criterion.start()
    with pytest.raises(ValueError, match="no batch"):
        criterion.importance(Evidence(net, groups["0"]))


def test_it_can_be_made_aware_of_macs() -> None:
    net, inner = Residual(), Fisher()
    criterion = MacAware(inner, "mul")
    groups = trace_groups(net, batches()[0])
    criterion.start()
    net(batches()[0]).square().mean().backward()
    criterion.add_batch(net, groups, tuple(groups))
    assert criterion.sums is inner.sums
    assert set(criterion.sums) == set(groups)


def test_double_precision_stays_double() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        x = torch.rand(4, 2)
        groups = trace_groups(model, x)
        criterion = Fisher()
        criterion.start()
        model(x).sum().backward()
        criterion.add_batch(model, groups, ["0"])
        assert criterion.sums["0"].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
