"""All batches walk together: as in plain forward passes, and nothing is left behind."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_prune.graph.forward_pass import call
from lightning_prune.observe.walk import PathsDifferError, Stop, walk
from lightning_prune.surgery.copy_module import copy_module
from tests.networks import EXAMPLE, NETWORKS, make


def batches_of(number: int, size: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(number)
    return [torch.rand(size, *EXAMPLE.shape[1:], generator=generator) for _ in range(number)]


def leaves(net: nn.Module) -> list[str]:
    return [name for name, module in net.named_modules() if not list(module.children())]


def ignore(_: Stop) -> None:
    pass


@pytest.fixture(autouse=True)
def nothing_is_left():
    threads = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == threads


def hooks_of(net: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in net.modules())


class Loop(nn.Module):
    """A cell that runs once for each frame, between two other layers."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.cell, self.say = nn.Linear(3, 4), nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 4)
        for frame in x.unbind(1):
            state = torch.tanh(self.cell(torch.cat([self.read(frame), state], 1)))
        return self.say(state)


class Branches(nn.Module):
    """Goes where its inputs say."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(2, 2) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 10:
            return x
        x = self.first(x)
        return self.second(x) if x.shape[0] > 1 else self.third(x)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("with_twin", [False, True])
def test_a_walk_gives_what_plain_forward_passes_give_bit_by_bit(network, with_twin):
    net = make(network).eval()
    batches = batches_of(3)
    with torch.no_grad():
        expected = [net(x) for x in batches]
    visits = dict.fromkeys(leaves(net), ignore)
    outputs = walk(net, batches, call, visits, twin=copy_module(net) if with_twin else None)
    assert all(map(torch.equal, outputs, expected))


@pytest.mark.parametrize("network", NETWORKS)
def test_each_layer_is_visited_once_in_the_order_of_the_pass_with_what_it_reads(network):
    net = make(network).eval()
    batches = batches_of(2)
    order: list[str] = []
    read: dict[str, list[Tensor]] = {}

    def hook(name: str):
        def note(_: nn.Module, x: tuple[Tensor, ...]) -> None:
            order.append(name)
            read.setdefault(name, []).append(x[0])

        return note

    handles = [net.get_submodule(n).register_forward_pre_hook(hook(n)) for n in leaves(net)]
    with torch.no_grad():
        for x in batches:
            net(x)
    for handle in handles:
        handle.remove()
    order = list(dict.fromkeys(order))
    seen = []

    def visit(stop: Stop) -> None:
        seen.append(stop.name)
        assert stop.layer is net.get_submodule(stop.name)
        own = read[stop.name]
        calls = len(own) // len(batches)
        assert all(map(torch.equal, stop.inputs, own[::calls]))
        assert all(map(torch.equal, stop.twin_inputs, own[::calls]))

    walk(net, batches, call, dict.fromkeys(leaves(net), visit), twin=copy_module(net))
    assert seen == order


def test_a_change_reaches_all_later_layers_of_all_batches_and_not_the_twin():
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
    twin, changed = copy_module(net), copy_module(net)
    with torch.no_grad():
        changed[1].weight.mul_(-3)
    batches = [torch.rand(2, 2) for _ in range(3)]
    seen: dict[str, Stop] = {}

    def visit(stop: Stop) -> None:
        seen[stop.name] = Stop(stop.name, stop.layer, list(stop.inputs), list(stop.twin_inputs))
        if stop.name == "1":
            stop.layer.weight.mul_(-3)

    outputs = walk(net, batches, call, dict.fromkeys("0123", visit), twin=twin)
    with torch.no_grad():
        for number, x in enumerate(batches):
            for layer in range(4):
                assert torch.equal(seen[str(layer)].inputs[number], changed[:layer](x))
                assert torch.equal(seen[str(layer)].twin_inputs[number], twin[:layer](x))
            assert torch.equal(outputs[number], changed(x))


def test_layers_in_a_loop_are_visited_before_they_run_first():
    torch.manual_seed(0)
    net, batches = Loop(), [torch.rand(2, 5, 3), torch.rand(3, 5, 3)]
    seen = []

    def visit(stop: Stop) -> None:
        seen.append((stop.name, [len(x) for x in stop.inputs]))
        stop.layer.weight.mul_(2)

    outputs = walk(net, batches, call, dict.fromkeys(["say", "cell", "read"], visit))
    assert seen == [("read", [2, 3]), ("cell", [2, 3]), ("say", [2, 3])]
    with torch.no_grad():
        assert all(map(torch.equal, outputs, map(net, batches)))


@pytest.mark.parametrize(
    "batches",
    [
        [torch.zeros(1, 2), torch.zeros(2, 2)],
        [torch.zeros(2, 2), torch.ones(2, 2) * 9],
        # The first ends before the others begin: its thread's number is free again.
        [torch.ones(2, 2) * 9, torch.zeros(2, 2), torch.zeros(2, 2)],
    ],
)
def test_batches_that_come_to_different_layers_are_refused(batches):
    net = Branches().train()
    before = torch.get_rng_state()
    with pytest.raises(PathsDifferError, match="batches come to different layers"):
        walk(net, batches, call, dict.fromkeys(leaves(net), ignore), twin=copy_module(net))
    assert net.training
    assert not hooks_of(net)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("fails", ["visit", "first pass", "last pass", "context"])
def test_an_error_comes_through_and_leaves_all_as_it_was(fails):
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(), nn.Linear(2, 2)).train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    twin = copy_module(net).train()
    calls = []

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        torch.rand(1), np.random.rand(), random.random()
        x = model[:3](x)
        calls.append(len(x))
        if fails == {2: "first pass", 4: "last pass"}.get(len(x)):
            raise ZeroDivisionError("made up")
        return model[3](x)

    def visit(stop: Stop) -> None:
        torch.rand(1)
        if fails == "visit" and stop.name == "3":
            raise ZeroDivisionError("made up")

    def context():
        if fails == "context":
            raise ZeroDivisionError("made up")
        return torch.enable_grad()

    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    batches = [torch.rand(size, 2) for size in (2, 3, 4)]
    states = torch.get_rng_state(), states[1], states[2]
    with pytest.raises(ZeroDivisionError, match="made up"):
        walk(net, batches, forward, dict.fromkeys("013", visit), twin=twin, context=context)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    for each in (net, twin):
        assert not hooks_of(each)
        assert each[0].training
        assert each[2].training
    assert not net[1].training
    assert not net[0].weight.requires_grad
    assert torch.is_grad_enabled()


def test_nothing_is_left_after_a_walk_that_ends_well():
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2)).train()
    before = torch.get_rng_state()
    walk(net, [torch.zeros(1, 2)], call, {"2": ignore})
    assert net.training
    assert net[1].training
    assert not hooks_of(net)
    assert torch.equal(torch.get_rng_state(), before)


def test_there_are_no_gradients_and_the_context_holds_in_each_pass():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    kinds = []

    def visit(stop: Stop) -> None:
        kinds.extend((x.dtype, x.requires_grad) for x in stop.inputs)

    outputs = walk(
        net, [torch.rand(2, 4)] * 3, call, {"1": visit},
        context=lambda: torch.autocast("cpu", torch.bfloat16),
    )  # fmt: skip
    assert kinds == [(torch.bfloat16, False)] * 3
    assert all(y.dtype == torch.bfloat16 and not y.requires_grad for y in outputs)


class Words(nn.Module):
    """Integer inputs, layers called by name, and one that nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.project, self.spare = nn.Embedding(5, 3), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, tokens: Tensor, *, scale: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.project(input=self.table(input=tokens))
        return x, {"scaled": x * scale}


def test_named_and_integer_inputs_and_layers_that_no_pass_reaches():
    torch.manual_seed(0)
    net = Words()
    batches = [{"tokens": torch.tensor([[1, 2]]), "scale": torch.tensor(2.0)}] * 2
    seen = []
    visits = dict.fromkeys(["table", "project", "spare"], lambda stop: seen.append(stop))
    outputs = walk(net, batches, call, visits)
    assert [stop.name for stop in seen] == ["table", "project"]
    assert seen[0].inputs[0].dtype == torch.int64
    assert torch.equal(outputs[1][1]["scaled"], 2 * outputs[1][0])


def test_several_arguments_of_a_network_and_of_a_layer():
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = nn.Bilinear(2, 3, 2)
            self.named = Scale()

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.named(factor=self.both(x, y))

    class Scale(nn.Module):
        def forward(self, factor: Tensor) -> Tensor:
            return 2 * factor

    net, seen = Pair(), []
    batch = (torch.rand(2, 2), torch.rand(2, 3))
    (out,) = walk(net, [batch], call, dict.fromkeys(["both", "named"], seen.append))
    assert torch.equal(seen[0].inputs[0], batch[0])
    assert torch.equal(out, 2 * seen[1].inputs[0])


def test_results_are_the_same_in_every_run():
    def once() -> tuple[list[Tensor], list[str]]:
        torch.manual_seed(1)
        net, order = make(NETWORKS[1]), []

        def visit(stop: Stop) -> None:
            order.append(stop.name)
            stop.layer.weight.add_(torch.rand_like(stop.layer.weight) * stop.inputs[-1].mean())

        return walk(
            net, batches_of(4), call, dict.fromkeys(["stem.0", "a1.0", "b2.0"], visit)
        ), order

    (first, order), (second, again) = once(), once()
    assert order == again
    assert all(map(torch.equal, first, second))


def test_what_was_compiled_is_walked_through_as_well():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    compiled, seen = torch.compile(net, backend="eager"), []
    compiled(torch.rand(2, 2))
    walk(compiled, [torch.rand(2, 2)] * 2, call, dict.fromkeys("01", seen.append))
    assert [stop.name for stop in seen] == ["0", "1"]


def test_a_walk_without_batches_or_to_unknown_layers_is_refused():
    net = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="pass at least one"):
        walk(net, [], call, {"0": ignore})
    with pytest.raises(KeyError, match="no layer 'head'"):
        walk(net, [torch.zeros(1, 2)], call, {"0": ignore, "head": ignore})
    assert not hooks_of(net)


def test_contexts_that_change_the_default_type_leave_it_as_it_was() -> None:
    """Those of double precision do; the passes of several batches end one after the other."""

    @contextmanager
    def double() -> Iterator[None]:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)

    class Made(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x)) + torch.zeros(2)  # of the default type

    net, batches = Made().double(), [torch.rand(3, 2).double() for _ in range(3)]
    names = {name: lambda _: None for name in ("first", "last")}
    found = walk(net, batches, call, names, context=double)
    assert all(output.dtype == torch.float64 for output in found)
    assert torch.get_default_dtype() == torch.float32
