import threading
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.profiler import record_function
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune.surgery.copy_module import copy_module


class Watcher:
    """Hooks a module as Lightning's PyTorch profiler does: its records cannot be copied."""

    def __init__(self, module):
        self.module, self.records, self.passes = module, {}, 0
        for name, part in module.named_modules():
            part.register_forward_pre_hook(partial(self.start, name=name))
            part.register_forward_hook(partial(self.stop, name=name))

    def start(self, module, inputs, name):
        self.records[name] = record_function(name)
        self.records[name].__enter__()

    def stop(self, module, inputs, output, name):
        self.records[name].__exit__(None, None, None)
        self.passes += 1


class Doubled(nn.Module):
    """A module whose hook, bound to the module itself, changes what it computes."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.register_forward_hook(self.double)
        self.lock, self.seen, self.outputs = threading.Lock(), None, []
        self.backward_reference = [self.layer]

    def double(self, module, inputs, output):
        return output * self.factor

    def forward(self, x):
        self.seen = self.layer(x)
        self.outputs.append(self.seen)
        return self.seen


@pytest.mark.parametrize("watched", [False, True])
def test_a_copy_computes_the_same_and_shares_no_weight(watched):
    net, x = Doubled(), torch.randn(4, 3)
    expected = net(x)
    watcher = Watcher(net) if watched else None
    net(x)
    passes = 0 if watcher is None else watcher.passes
    twin = copy_module(net)
    torch.testing.assert_close(twin(x), expected)
    with torch.no_grad():
        twin.factor.fill_(3.0)
    # Its own hook follows the copy's factor, not the original's.
    torch.testing.assert_close(twin(x), expected * 1.5)
    torch.testing.assert_close(net(x), expected)
    assert twin.layer.weight is not net.layer.weight
    assert twin.backward_reference[0] is twin.layer
    assert twin.lock is net.lock
    assert len(net.outputs) == 3
    if watcher is not None:
        assert watcher.passes == passes + 2  # those of the original's one more pass


def test_what_can_be_copied_is_copied_as_ever():
    net = parametrizations.weight_norm(nn.Linear(3, 2))
    net.cache = {"a": [torch.ones(2)]}
    twin = copy_module(net)
    twin.cache["a"].append(0)
    assert len(net.cache["a"]) == 1
    x = torch.randn(2, 3)
    torch.testing.assert_close(twin(x), net(x))


def test_iterators_and_generators_are_shared():
    net = nn.Linear(3, 2)
    net.batches = iter(DataLoader(TensorDataset(torch.zeros(2, 3)), 1))
    net.numbers = (n for n in range(3))
    twin = copy_module(net)
    assert twin.numbers is net.numbers
    assert torch.equal(twin.weight, net.weight)


def test_a_copy_has_empty_dicts_of_its_own():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    net.kept = net.same = {}
    twin = copy_module(net)
    assert twin.kept is twin.same
    twin.kept["here"] = 1
    heard = []
    twin[1].register_forward_hook(lambda *_: heard.append("twin"))
    net(torch.zeros(1, 2))
    assert (net.kept, heard) == ({}, [])
    twin(torch.zeros(1, 2))
    assert heard == ["twin"]
