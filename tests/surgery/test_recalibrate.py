import pytest
import torch
from torch import nn

from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.recalibrate import recalibrate_norms
from tests.networks import EXAMPLE, Residual, make, random_plan


def forward(model, batch):
    return model(batch)


def test_statistics_are_the_mean_over_batches():
    """Oracle: mean and unbiased variance of the convolution's outputs, by hand."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, momentum=0.03), nn.Dropout(0.5))
    net[1].running_mean.fill_(100)
    batches = [torch.randn(4, 3, 6, 6) for _ in range(3)]
    assert recalibrate_norms(net.train(), iter(batches), forward) == 3
    outputs = [net[0](batch).movedim(1, 0).flatten(1) for batch in batches]
    mean = torch.stack([o.mean(1) for o in outputs]).mean(0)
    variance = torch.stack([o.var(1) for o in outputs]).mean(0)
    torch.testing.assert_close(net[1].running_mean, mean)
    torch.testing.assert_close(net[1].running_var, variance)
    assert net[1].momentum == 0.03


def test_modes_random_state_and_frozen_norms_stay():
    net = make(Residual).train()
    net.a1[1].eval()
    frozen = net.a1[1].running_mean.clone()
    state = torch.get_rng_state()
    recalibrate_norms(net, [torch.randn(4, 3, 8, 8, generator=torch.Generator())], forward)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(net.a1[1].running_mean, frozen)
    assert [m.training for m in (net, net.a1[1], net.a2[1])] == [True, False, True]


def test_without_batches_nothing_changes():
    net = make(Residual).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert recalibrate_norms(net, [], forward) == 0
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_momentum_comes_back_after_an_error():
    net = make(Residual).train()
    with pytest.raises(RuntimeError):
        recalibrate_norms(net, [torch.randn(4, 7, 8, 8)], forward)
    assert {m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_a_masked_network_is_nearer_to_its_own_statistics():
    """In eval mode the recalibrated network does what it does in training mode."""
    net = make(Residual).train()
    data = torch.randn(64, 3, 8, 8)
    recalibrate_norms(net, [data], forward)
    groups = trace_groups(net, EXAMPLE)
    ChannelMask(net, groups, random_plan(groups)).apply()

    def gap():
        with torch.no_grad():
            trained = net.train()(data)
            stale = {k: v.clone() for k, v in before.items()}
            net.load_state_dict(stale)
            return float((net.eval()(data) - trained).abs().max())

    before = {k: v.clone() for k, v in net.state_dict().items()}
    stale = gap()
    recalibrate_norms(net.train(), [data], forward)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert gap() < 0.2 * stale
