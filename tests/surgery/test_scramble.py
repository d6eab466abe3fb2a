import copy

import torch
from torch import nn

from lightning_prune.surgery.scramble import scramble


def test_scrambled_weights_hide_nothing():
    net = nn.Sequential(nn.Conv2d(64, 32, 3), nn.BatchNorm2d(32), nn.Embedding(9, 5))
    net.scale = nn.Parameter(torch.full((32,), 1e-6))
    net.token = nn.Parameter(torch.zeros(1, 1, 8))
    net.count = nn.Parameter(torch.arange(3), requires_grad=False)
    net.register_buffer("grid", torch.linspace(0, 1, 5))
    nn.init.zeros_(net[0].weight)
    scramble(net)
    assert 0.9 < net[0].weight.std() * (64 * 9 / 2) ** 0.5 < 1.1
    for vector in (net.scale, net[1].weight, net[1].running_var):
        assert 0.5 <= vector.min() < 0.7
        assert 1.3 < vector.max() <= 1.5
    assert net[1].running_mean.abs().min() > 0
    assert net.token.std() > 0.3
    assert net[2].weight.std() > 0.5
    assert net.count.tolist() == [0, 1, 2]
    assert torch.equal(net.grid, torch.linspace(0, 1, 5))
    again = copy.deepcopy(net)
    scramble(again)
    assert torch.equal(again[0].weight, net[0].weight)


def test_gently_scrambled_weights_stay_near():
    layer = nn.Linear(3, 3)
    nn.init.constant_(layer.weight, 10.0)
    scramble(layer, gentle=True)
    assert layer.weight.min() > 4.9
    assert layer.weight.max() < 15.1
    assert layer.weight.std() > 1
