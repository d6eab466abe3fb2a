import copy

import pytest
import torch

from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.optimizer import (
    assert_bound,
    clear_rows,
    clear_statistics,
    rebind_optimizer,
)
from tests.networks import EXAMPLE, Residual, make, random_plan

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2),
    "amsgrad": lambda p: torch.optim.Adam(p, 1e-2, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2),
    "adadelta": lambda p: torch.optim.Adadelta(p, 1e-1),
    "adamax": lambda p: torch.optim.Adamax(p, 1e-2),
    "nadam": lambda p: torch.optim.NAdam(p, 1e-3),
    "radam": lambda p: torch.optim.RAdam(p, 1e-3),
    "rprop": lambda p: torch.optim.Rprop(p, 1e-3),
    "asgd": lambda p: torch.optim.ASGD(p, 1e-2),
    "foreach": lambda p: torch.optim.AdamW(p, 1e-2, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, 1e-2, fused=True),
    "tensor rate": lambda p: torch.optim.Adam(p, torch.tensor(1e-2), foreach=False),
    "sharpness": lambda p: Sharpness(p, torch.optim.SGD, lr=0.05, momentum=0.9),
    "lookahead": lambda p: Lookahead(torch.optim.Adam(p, 1e-2)),
}


class Sharpness(torch.optim.Optimizer):
    """An optimizer around another one that shares its groups, as SAM is written."""

    def __init__(self, params, base, rho=0.05, **options):
        super().__init__(params, {"rho": rho, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                self.state[p]["old"] = p.detach().clone()
        self.base_optimizer.step()

    def state_dict(self):
        return self.base_optimizer.state_dict()

    def load_state_dict(self, state):
        self.base_optimizer.load_state_dict(state)
        self.param_groups = self.base_optimizer.param_groups


class Lookahead(torch.optim.Optimizer):
    """An optimizer that keeps slow weights in a dict and the parameters in a list of its own."""

    def __init__(self, inner):
        super().__init__(inner.param_groups, {})
        self.inner, self.param_groups = inner, inner.param_groups
        self.all = [p for group in inner.param_groups for p in group["params"]]
        self.slow = {p: p.detach().clone() for p in self.all}

    @torch.no_grad()
    def step(self, closure=None):
        self.inner.step()
        for p in self.all:
            self.slow[p].lerp_(p, 0.5)
            p.copy_(self.slow[p])

    def state_dict(self):
        return {"inner": self.inner.state_dict(), "slow": list(self.slow.values())}

    def load_state_dict(self, state):
        self.inner.load_state_dict(state["inner"])
        self.param_groups = self.inner.param_groups
        for slow, value in zip(self.slow.values(), state["slow"], strict=True):
            slow.copy_(value)


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
        groups = trace_groups(net, example)
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
    groups = trace_groups(net, EXAMPLE)
    rebind_optimizer(optimizer, cut_channels(net, groups, random_plan(groups)))
    scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.05]
    bound = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert bound == {id(p) for p in net.parameters()}
    assert all(p.ndim > 1 for p in optimizer.param_groups[0]["params"])


def test_a_forgotten_rebind_is_an_error():
    net = make(Residual)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    groups = trace_groups(net, EXAMPLE)
    pruned = cut_channels(net, groups, random_plan(groups))
    with pytest.raises(RuntimeError, match="call rebind_optimizer"):
        assert_bound([optimizer], pruned)


def test_factored_state_starts_anew_with_a_warning():
    net = make(Residual)
    optimizer = torch.optim.Adafactor(net.parameters())
    train(net, optimizer, 1, seed=0)
    groups = trace_groups(net, EXAMPLE)
    pruned = cut_channels(net, groups, random_plan(groups))
    with pytest.warns(UserWarning, match="starts again"):
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
    with pytest.warns(UserWarning, match="its whole state for this parameter starts again"):
        clear_rows([optimizer], weight, 0, torch.tensor([1]))
    assert weight not in optimizer.state


def test_one_warning_names_all_parameters_whose_state_is_lost():
    net = make(Residual)
    optimizer = torch.optim.Adafactor(net.parameters())
    train(net, optimizer, 1, seed=0)
    groups = trace_groups(net, EXAMPLE)
    pruned = cut_channels(net, groups, random_plan(groups))
    with pytest.warns(UserWarning) as caught:
        rebind_optimizer(optimizer, pruned)
    (told,) = [str(w.message) for w in caught]
    # Five 3x3 convolutions and the head; what is factored of a 1x1 convolution has its own shape.
    assert "row_var, col_var of stem.0.weight and 5 more in a form that cannot be cut" in told


def closure_of(net, optimizer):
    torch.manual_seed(3)
    batch = torch.randn(4, 3, 8, 8)

    def closure():
        optimizer.zero_grad()
        loss = net(batch).square().mean()
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("first_is_cut", [True, False])
def test_lbfgs_forgets_its_flat_vectors_and_goes_on(first_is_cut):
    """Oracle: a new optimizer on the cut model takes the same steps."""
    net = make(Residual)
    parameters = list(net.parameters())
    if not first_is_cut:  # its state hangs on the first parameter, whether that is cut or not
        bias = net.head.bias
        parameters = [bias, *(p for p in parameters if p is not bias)]
    optimizer = torch.optim.LBFGS(parameters, 0.01, max_iter=2)
    optimizer.step(closure_of(net, optimizer))
    groups = trace_groups(net, EXAMPLE)
    plan = random_plan(groups)
    ChannelMask(net, groups, plan).apply()
    with pytest.warns(UserWarning, match="one vector of all parameters"):
        rebind_optimizer(optimizer, cut_channels(net, groups, plan))
    twin = copy.deepcopy(net)
    other = torch.optim.LBFGS(twin.parameters(), 0.01, max_iter=2)
    before = [p.detach().clone() for p in net.parameters()]
    for _ in range(2):
        optimizer.step(closure_of(net, optimizer))
        other.step(closure_of(twin, other))
    for a, b, was in zip(net.parameters(), twin.parameters(), before, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
        assert not torch.equal(a, was)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_cleared_statistics_are_those_of_a_new_optimizer(name):
    """Oracle: a new optimizer takes the same steps; Adagrad's constructor makes its state."""
    net = make(Residual)
    optimizer = OPTIMIZERS[name](net.parameters())
    train(net, optimizer, 2, seed=1)
    twin = copy.deepcopy(net)
    clear_statistics(optimizer)
    train(net, optimizer, 2, seed=2)
    train(twin, OPTIMIZERS[name](twin.parameters()), 2, seed=2)
    if name != "lookahead":  # its slow weights are no statistics
        for a, b in zip(net.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_reset_rows_of_rprop_take_the_first_step_size():
    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = torch.optim.Rprop([weight], 0.25)
    for _ in range(3):
        weight.grad = torch.ones(3, 2)
        optimizer.step()
    grown = optimizer.state[weight]["step_size"][0, 0].item()
    assert grown > 0.25
    clear_rows([optimizer], weight, 0, torch.tensor([1]))
    assert optimizer.state[weight]["step_size"].tolist() == [[grown] * 2, [0.25] * 2, [grown] * 2]
    assert not optimizer.state[weight]["prev"][1].any()
