import copy

import pytest
import torch

from lightning_prune.graph.groups import build_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.optimizer import assert_bound, clear_rows, rebind_optimizer
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


def test_rows_are_cleared_in_every_optimizer_that_has_them():
    a, b = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(3, 2))
    both = torch.optim.Adam([a, b], 0.1)
    one = torch.optim.SGD([a], 0.1, momentum=0.9)
    fresh = torch.optim.SGD([b], 0.1, momentum=0.9)
    for parameter in (a, b):
        parameter.grad = torch.ones(3, 2)
    both.step()
    one.step()
    clear_rows([both, one, fresh], a, 1, torch.tensor([1]))
    for values in (both.state[a]["exp_avg"], both.state[a]["exp_avg_sq"]):
        assert values[:, 0].min() > 0
        assert not values[:, 1].any()
    assert one.state[a]["momentum_buffer"].tolist() == [[1.0, 0.0]] * 3
    assert both.state[a]["step"] == 1
    assert both.state[b]["exp_avg"].min() > 0
    assert not fresh.state


def test_numbers_beside_a_parameter_of_one_element_stay():
    """A step is a tensor, too: it must not be taken for a state of one row."""
    scale = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([scale], 0.1)
    scale.grad = torch.ones(1)
    optimizer.step()
    clear_rows([optimizer], scale, 0, torch.tensor([0]))
    state = optimizer.state[scale]
    assert (state["step"].item(), state["exp_avg"].item()) == (1.0, 0.0)


def test_a_factored_state_has_no_rows():
    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = torch.optim.Adafactor([weight])
    weight.grad = torch.ones(3, 2)
    optimizer.step()
    clear_rows([optimizer], weight, 0, torch.empty(0, dtype=torch.int64))
    assert optimizer.state[weight]["step"] == 1
    with pytest.warns(UserWarning, match="its whole state for this parameter starts anew"):
        clear_rows([optimizer], weight, 0, torch.tensor([1]))
    assert weight not in optimizer.state
