"""Compare the channels that torch-pruning and the package take for one: the same rows and columns?

    python benchmarks/partition.py                      # 20 networks of torchvision
    python benchmarks/partition.py resnet18 --verbose   # with the layers of each difference

A channel is a set of (layer, side, position): rows ("out") and columns ("in") of convolutions and
linear layers that can only go together. The two partitions are compared channel by channel. What
differs, and why, is explained in docs/groups.md.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import torch
import torch_pruning
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torchvision import models

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.trace import trace_groups

Place = tuple[str, str, int]
Channel = frozenset[Place]
_NAMES = """
alexnet vgg11_bn resnet18 resnet50 resnext50_32x4d wide_resnet50_2 squeezenet1_1 densenet121
inception_v3 googlenet mobilenet_v2 mobilenet_v3_small mnasnet0_5 efficientnet_b0
efficientnet_v2_s regnet_y_400mf regnet_x_400mf shufflenet_v2_x0_5 convnext_tiny swin_t vit_b_32
"""
NETWORKS = _NAMES.split()


def ours(model: nn.Module, groups: ChannelGroups) -> set[Channel]:
    """Return the channels of our groups that some layer makes and some layer reads."""
    layers = dict(model.named_modules())
    found: dict[tuple[str, int], set[Place]] = defaultdict(set)
    for name, group in groups.items():
        for member in group.members:
            layer = layers.get(member.layer)
            for tensor, dim in member.dims:
                if tensor != "weight" or not isinstance(layer, _ConvNd | nn.Linear):
                    continue
                side = "out" if dim == int(isinstance(layer, _ConvTransposeNd)) else "in"
                for place, channel in zip(
                    member.index.tolist(), member.channel.tolist(), strict=True
                ):
                    found[name, channel].add((member.layer, side, place))
    return _whole(found.values())


def torch_prunings(model: nn.Module, example: Any) -> set[Channel]:
    """Return torch-pruning's channels; indices that it prunes together are one."""
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example)
    names = {module: name for name, module in model.named_modules()}
    parent: dict[Place, Place] = {}

    def root(place: Place) -> Place:
        while parent.setdefault(place, place) != place:
            parent[place] = place = parent[parent[place]]
        return place

    for group in graph.get_all_groups():
        first: dict[int, Place] = {}
        for item in group:
            layer = item.dep.target.module
            if not isinstance(layer, _ConvNd | nn.Linear):
                continue
            depthwise = isinstance(layer, _ConvNd) and layer.groups == layer.in_channels > 1
            out = depthwise or graph.is_out_channel_pruning_fn(item.dep.handler)
            for index, start in zip(item.idxs, item.root_idxs, strict=False):
                place = (names[layer], "out" if out else "in", index)
                parent[root(place)] = root(first.setdefault(start, place))
    found: dict[Place, set[Place]] = defaultdict(set)
    for place in list(parent):
        found[root(place)].add(place)
    return _whole(found.values())


def _whole(channels: Iterable[set[Place]]) -> set[Channel]:
    return {
        frozenset(channel)
        for channel in channels
        if {side for _, side, _ in channel} == {"in", "out"}
    }


def compare(model: nn.Module, example: Any) -> dict[str, Any]:
    """Return how many channels are the same, and the layers of those that are not.

    Returns:
        ``same``, ``only_ours``, ``only_theirs``: numbers of channels; ``reasons``: what we say of
        those that only torch-pruning has, with their number; ``layers``: first layer that makes
        the channels of each difference, with whose it is and their number.
    """
    groups = trace_groups(model, example)
    mine, theirs = ours(model, groups), torch_prunings(model, example)
    order = {name: number for number, name in enumerate(groups.order)}

    def maker(channel: Channel) -> str:
        outs = {layer for layer, side, _ in channel if side == "out"}
        return min(outs, key=lambda name: order.get(name, len(order)))

    reasons: Counter[str] = Counter()
    for channel in theirs - mine:
        made = {layer for layer, side, _ in channel if side == "out"}
        refused = [groups.refused[layer] for layer in sorted(made) if layer in groups.refused]
        reasons[refused[0] if refused else "other positions"] += 1
    layers = Counter(("ours", maker(channel)) for channel in mine - theirs)
    layers += Counter(("theirs", maker(channel)) for channel in theirs - mine)
    return {
        "same": len(mine & theirs),
        "only_ours": len(mine - theirs),
        "only_theirs": len(theirs - mine),
        "reasons": dict(reasons),
        "layers": dict(layers),
    }


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="names in torchvision.models")
    parser.add_argument("--verbose", action="store_true", help="list layers that differ")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | same | only ours | only torch-pruning's | what we say of those |")
    print("|---|---:|---:|---:|---|")
    for name in args.networks:
        torch.manual_seed(0)
        options = {"init_weights": False, "aux_logits": False}
        given = options if name in ("googlenet", "inception_v3") else {}
        model = models.get_model(name, weights=None, **given).eval()
        size = 224 if name.startswith(("vit", "swin")) else 96
        try:
            row = compare(model, torch.randn(1, 3, size, size))
        except Exception as error:  # whatever the peer raises on this network
            print(f"| {name} | - | - | - | {type(error).__name__}: {str(error)[:80]} |", flush=True)
            continue
        said = "; ".join(f"{count}: {reason}" for reason, count in row["reasons"].items())
        counts = f"{row['same']} | {row['only_ours']} | {row['only_theirs']}"
        print(f"| {name} | {counts} | {said} |", flush=True)
        if args.verbose:
            for (whose, layer), count in row["layers"].items():
                print(f"    {whose}: {layer} {count}")


if __name__ == "__main__":
    main()
