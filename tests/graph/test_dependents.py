from types import SimpleNamespace

import pytest
import torch
import torch_pruning as tp
from torch import nn
from torch_pruning.dependency import index_mapping
from torchvision.models import mobilenet_v2

from lightning_prune.graph.dependents import BoundedGraph, UnboundedError, dependents
from lightning_prune.graph.layer_kinds import is_producer, width_of
from lightning_prune.surgery.build_groups import build_groups
from tests.networks import EXAMPLE, Chain, Concat, Depthwise, Residual


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (Chain, 8),
        (Residual, 8),
        (Concat, 8),
        (Depthwise, 8),
        (lambda: mobilenet_v2(weights=None), 32),
    ],
    ids=["chain", "residual", "concat", "depthwise", "mobilenet"],
)
def test_the_groups_are_those_of_torch_pruning(make, size):
    net = make().eval()
    graph = BoundedGraph().build_dependency(net, torch.zeros(1, 3, size, size), verbose=False)
    for root in [m for m in net.modules() if is_producer(m)][:12]:
        prune = graph.get_pruner_of_module(root).prune_out_channels
        group = graph.get_pruning_group(root, prune, list(range(width_of(root))))
        expected = {
            (item.dep.target, item.dep.handler): set(zip(item.idxs, item.root_idxs, strict=True))
            for item in group.items
        }
        found = {
            (d.dep.target, d.dep.handler): set(
                zip(d.index.tolist(), d.channel.tolist(), strict=True)
            )
            for d in dependents(graph, root, width_of(root))
        }
        assert found == expected


class Node:
    def __init__(self):
        self.dependencies, self.module = [], None


def chain_of(*mappings):
    """Return a graph of nodes that map channels to one another, over and over."""
    prune, root = object(), object()
    nodes = [Node() for _ in mappings]
    for n, mapping in enumerate(mappings):
        dep = tp.Dependency(prune, prune, nodes[n], nodes[(n + 1) % len(nodes)])
        dep.index_mapping = [mapping, None]
        nodes[n].dependencies.append(dep)
    graph = SimpleNamespace(
        module2node={root: nodes[0]},
        get_pruner_of_module=lambda _: SimpleNamespace(prune_out_channels=prune),
    )
    return graph, root


def test_positions_that_grow_in_a_circle_end_in_an_error():
    grow = index_mapping._FlattenIndexMapping(stride=4)
    with pytest.raises(UnboundedError, match="without an end"):
        dependents(*chain_of(grow, grow), 16)


def test_shifts_that_never_meet_end_in_an_error(monkeypatch):
    monkeypatch.setattr("lightning_prune.graph.dependents.MOST_PAIRS", 1000)
    shift = index_mapping._ConcatIndexMapping(offset=[3, 19])
    with pytest.raises(UnboundedError, match="without an end"):
        dependents(*chain_of(shift, shift), 16)


def test_a_mapping_nobody_knows_is_an_error():
    with pytest.raises(UnboundedError, match="not followed"):
        dependents(*chain_of(lambda indices: indices), 4)


def test_the_search_for_widths_ends(monkeypatch):
    monkeypatch.setattr("lightning_prune.graph.dependents.MOST_LOOKUPS", 2)
    with pytest.raises(ValueError, match="search for the widths of its layers does not end"):
        build_groups(Concat(), EXAMPLE)


class GroupedKeys(nn.Module):
    """Attention with fewer heads of keys than of queries, and rotated halves."""

    def __init__(self, width=32, heads=4, shared=2):
        super().__init__()
        self.size, self.repeat = width // heads, heads // shared
        self.q, self.o = nn.Linear(width, width), nn.Linear(width, width)
        self.k, self.v = (nn.Linear(width, shared * self.size) for _ in range(2))
        self.up, self.down = nn.Linear(width, 48), nn.Linear(48, width)

    def forward(self, x):
        q, k, v = (
            part(x).view(*x.shape[:2], -1, self.size).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        q, k = (torch.cat([-t[..., 4:], t[..., :4]], -1) + t for t in (q, k))
        k, v = (
            t[:, :, None].expand(-1, -1, self.repeat, -1, -1).reshape(len(t), -1, *t.shape[2:])
            for t in (k, v)
        )
        mixed = (q @ k.mT).softmax(-1) @ v
        x = x + self.o(mixed.transpose(1, 2).reshape(*x.shape[:2], -1))
        return x + self.down(self.up(x).relu())


def test_grouped_keys_are_refused_in_seconds_and_the_rest_is_pruned():
    net = nn.Sequential(nn.Linear(8, 32), GroupedKeys(), GroupedKeys(), nn.Linear(32, 3))
    groups = build_groups(net, torch.zeros(1, 9, 8))
    assert set(groups) == {"0", "1.up", "2.up"}
    assert {f"{n}.{part}" for n in (1, 2) for part in "qkv"} <= groups.refused.keys()
