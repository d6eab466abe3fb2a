import copy

import pytest
import torch

from lightning_prune.graph.groups import build_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.optimizer import assert_bound, rebind_optimizer
from tests.networks import EXAMPLE, Residual, make, random_plan

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2),
    "amsgrad": lambda p: torch.optim.Adam(p, 1e-2, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.5),
}


def train(net, optimizer, steps, seed):
    torch.manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_if_only_masked(name):
    """Oracle: the masked model, its statistics sliced, takes the same steps as the cut one."""
    net = make(Residual).double()
    optimizer = OPTIMIZERS[name](net.parameters())
    example = EXAMPLE.double()
    torch.set_default_dtype(torch.float64)
    try:
        train(net, optimizer, 3, seed=1)
        groups = build_groups(net, example)
        plan = random_plan(groups)
        masked = copy.deepcopy(net)
        twin = OPTIMIZERS[name](masked.parameters())
        twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        mask = ChannelMask(masked, groups, plan)
        mask.hold([twin])
        ChannelMask(net, groups, plan).apply()
        pruned = cut_channels(net, groups, plan)
        rebind_optimizer(optimizer, pruned)
        assert_bound([optimizer], pruned)
        train(net, optimizer, 3, seed=2)
        train(masked, twin, 3, seed=2)
    finally:
        torch.set_default_dtype(torch.float32)
    cut_channels(masked, groups, plan)
    for (key, a), b in zip(net.named_parameters(), masked.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-7, msg=key)


def test_schedulers_and_groups_stay_valid():
    net = make(Residual)
    decay = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD([{"params": decay, "weight_decay": 0.1}, {"params": rest}], 0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    train(net, optimizer, 1, seed=0)
    groups = build_groups(net, EXAMPLE)
    rebind_optimizer(optimizer, cut_channels(net, groups, random_plan(groups)))
    scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.05]
    bound = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert bound == {id(p) for p in net.parameters()}
    assert all(p.ndim > 1 for p in optimizer.param_groups[0]["params"])


def test_a_forgotten_rebind_is_an_error():
    net = make(Residual)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    groups = build_groups(net, EXAMPLE)
    pruned = cut_channels(net, groups, random_plan(groups))
    with pytest.raises(RuntimeError, match="call rebind_optimizer"):
        assert_bound([optimizer], pruned)


def test_factored_state_starts_anew_with_a_warning():
    net = make(Residual)
    optimizer = torch.optim.Adafactor(net.parameters())
    train(net, optimizer, 1, seed=0)
    groups = build_groups(net, EXAMPLE)
    pruned = cut_channels(net, groups, random_plan(groups))
    with pytest.warns(UserWarning, match="starts anew"):
        rebind_optimizer(optimizer, pruned)
    train(net, optimizer, 1, seed=0)
