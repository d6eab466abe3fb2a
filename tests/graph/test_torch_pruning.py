"""torch-pruning knows none of our rules: where it traces a network it finds the same groups."""

import pytest
import torch
import torch_pruning as tp
from torch import nn
from torchvision.models import mobilenet_v2

from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.testing import check_prunable
from tests.graph.cut import partition
from tests.networks import Chain, Concat, Depthwise, Residual

Part = tuple[str, str]
Pairs = set[tuple[int, int]]


def theirs(
    graph: tp.DependencyGraph, net: nn.Module, root: nn.Module, width: int
) -> dict[Part, Pairs]:
    """Return (layer, in or out) -> (position, channel of the root) of a group of its."""
    names = {module: name for name, module in net.named_modules()}
    prune = graph.get_pruner_of_module(root).prune_out_channels
    found: dict[Part, Pairs] = {}
    for item in graph.get_pruning_group(root, prune, list(range(width))).items:
        module = item.dep.target.module
        if module in names and any(True for _ in module.parameters(recurse=False)):
            reads = graph.is_in_channel_pruning_fn(item.dep.handler)
            is_norm = not isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
            depthwise = getattr(module, "groups", 1) > 1
            part = (names[module], "in" if reads and not is_norm and not depthwise else "out")
            found.setdefault(part, set()).update(zip(item.idxs, item.root_idxs, strict=True))
    return found


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
    example = torch.zeros(1, 3, size, size)
    groups = trace_groups(net, example)
    graph = tp.DependencyGraph().build_dependency(net, example, verbose=False)
    for group in groups.values():
        ours: dict[Part, Pairs] = {}
        for member in group.members:
            part = (member.layer, "in" if member.role == "consumer" else "out")
            pairs = zip(member.index.tolist(), member.channel.tolist(), strict=True)
            ours.setdefault(part, set()).update(pairs)
        root = net.get_submodule(group.root)
        assert ours == theirs(graph, net, root, group.channels)


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


def test_grouped_keys_go_with_their_queries():
    net = nn.Sequential(nn.Linear(8, 32), GroupedKeys(), GroupedKeys(), nn.Linear(32, 3))
    groups = build_groups(net, torch.zeros(1, 9, 8))
    assert set(groups) == {"0", "1.q", "1.up", "2.q", "2.up"}
    assert groups["1.q"].producers == ("1.q", "1.k", "1.v")
    # A head of keys and values, and the two heads of queries that share it.
    assert partition(groups, "1.q") == {
        "1.q": [list(range(16)), list(range(16, 32))],
        "1.k": [list(range(8)), list(range(8, 16))],
        "1.v": [list(range(8)), list(range(8, 16))],
    }
    assert check_prunable(net, torch.zeros(1, 9, 8)).difference < 1e-5
