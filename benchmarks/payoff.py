"""Latency of cut networks against the dense one: what half of the MACs is worth.

YOLOv8n (COCO weights where they are given, random ones otherwise: latency does not depend on
them) and YOLOv8s at 320 px, cut to a MAC target in each ranking, with rounding to 8 and 16. "Fast"
moves the widths as ``FastWidths`` does, "moved" lets it count the values that layers make and
read too; "narrow 8" rounds to 16, but layers of 16 and fewer channels to 8. Beside them
torch-pruning's own cut at about the same MACs. PyTorch in eval mode and ONNX Runtime, batch 1 and
8, one thread. The models take turns; the figures are ratios of the medians of processor time,
which other processes disturb less than the clock.

    python benchmarks/payoff.py --weights ../shared/data/yolov8n_coco/yolov8n_coco.safetensors
"""

import argparse
import copy
import itertools
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import onnxruntime
import torch
import torch_pruning as tp
from torch import Tensor, nn

from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.detection.weights.read_weights import read_state_dict
from lightning_prune.export.onnx_model import onnx_model
from lightning_prune.functional.widths.budget import scale_widths
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel, count_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.selection.fast_widths import FastWidths
from lightning_prune.policies.selection.ranking import Ranking
from lightning_prune.policies.selection.ratio_selection import RatioSelection
from lightning_prune.surgery.cut import cut_channels

Run = Callable[[Tensor], Any]


def dense(size: str, weights: Path | None) -> nn.Module:
    """Return the network to cut, in eval mode."""
    torch.manual_seed(0)
    network = YOLOv8(size, num_classes=80).eval()
    if size == "n" and weights is not None:
        network.load_state_dict(read_state_dict(weights))
    return network


def uniform(
    groups: ChannelGroups, macs: MacModel, target: float, block: Callable[[int], int]
) -> dict[str, int]:
    """One common fraction of every group, in multiples of each group's block, within the target."""
    names = list(groups)
    blocks = [block(groups[name].channels) for name in names]
    channels = [groups[name].channels for name in names]

    def in_blocks(counts: Sequence[int]) -> dict[str, int]:
        return {
            name: min(wide, max(1, round(count / size)) * size)
            for name, count, wide, size in zip(names, counts, channels, blocks, strict=True)
        }

    counts = scale_widths(
        channels,
        channels,
        lambda widths: macs.remaining(in_blocks(widths)),
        target * macs.total,
        keep_range=None,
    )
    return in_blocks(counts)


def largest(network: nn.Module, groups: ChannelGroups, widths: Mapping[str, int]) -> PruningPlan:
    """Keep the channels of the largest group norms."""
    macs = MacModel({}, {}, {}, {}, {})
    norms = GroupNorm().comparable(network, groups, tuple(groups), macs, PruningPlan())
    keep = {name: norms[name].topk(width).indices.sort()[0] for name, width in widths.items()}
    return PruningPlan(keep, {name: groups[name].channels for name in widths})


def cut(network: nn.Module, plan: PruningPlan, image_size: int) -> nn.Module:
    """A copy of the network that has been cut."""
    network = copy.deepcopy(network)
    groups = trace_groups(network, torch.zeros(1, 3, image_size, image_size))
    cut_channels(network, groups, plan)
    return network.eval()


def torch_pruning_cut(
    network: nn.Module, target: float, image_size: int, round_to: int, ranked: bool
) -> nn.Module:
    """torch-pruning's magnitude pruner at the ratio that comes closest to the target."""
    example = torch.zeros(1, 3, image_size, image_size)
    whole = count_macs(network, example)
    low, high = 0.0, 0.9
    best, distance = network, float("inf")
    for _ in range(6):
        ratio = (low + high) / 2
        candidate: Any = copy.deepcopy(network).train()  # raw maps: nothing behind them to trace
        head = candidate.head
        outputs = [branch[2] for branch in (*head.boxes, *head.classes)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tp.pruner.MetaPruner(
                candidate,
                example,
                importance=tp.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=ratio,
                global_pruning=ranked,
                round_to=round_to,
                ignored_layers=[*outputs, head.dfl],
                unwrapped_parameters=[(head.dfl.bins, 0)],
            ).step()
        share = count_macs(candidate.eval(), example) / whole
        if abs(share - target) < distance:
            best, distance = candidate, abs(share - target)
        low, high = (ratio, high) if share > target else (low, ratio)
    return best


def runtime(network: nn.Module, image_size: int) -> Run:
    """Return the network in ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = onnx_model(network, torch.zeros(1, 3, image_size, image_size), ("images",))
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.numpy()})


def in_turns(runs: Mapping[str, Run], images: Tensor, rounds: int) -> dict[str, float]:
    """Median processor time of each run in milliseconds; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for run in runs.values():
            run(images)
        for _ in range(rounds):
            for name, run in runs.items():
                start = time.process_time()
                run(images)
                taken[name].append(1000 * (time.process_time() - start))
    return {name: statistics.median(times) for name, times in taken.items()}


def candidates(network: nn.Module, args: argparse.Namespace) -> dict[str, nn.Module]:
    """Return the dense network, our cuts and torch-pruning's."""
    target, image_size = args.target, args.image_size
    example = torch.zeros(1, 3, image_size, image_size)
    groups = trace_groups(network, example)
    macs = MacModel.of(network, groups, example)
    models = {"dense": network}
    kinds: list[tuple[Ranking, int, str, FastWidths | None]] = [
        (ranking, round_to, "", None)
        for ranking, round_to in itertools.product(args.rankings, args.round_to)
    ]
    kinds += [(ranking, 8, ", fast", FastWidths()) for ranking in args.rankings]
    kinds += [(args.rankings[-1], 8, ", fast, moved", FastWidths(memory_cost=100, max_shift=0.5))]
    for ranking, round_to, kind, fast in kinds:
        selection = RatioSelection(
            groups, tuple(groups), macs, GroupNorm(), ranking, keep_range=(0.1, 1.0),
            round_to=round_to, fast_widths=fast,
        )  # fmt: skip
        plan = selection.select(network, 1.0, target=target).plan
        models[f"{ranking}, round {round_to}{kind}"] = cut(network, plan, image_size)
    widths = uniform(groups, macs, target, lambda channels: 16 if channels > 16 else 8)
    models["uniform, round 16, narrow 8"] = cut(
        network, largest(network, groups, widths), image_size
    )
    peers = [(round_to, False) for round_to in args.round_to]
    for round_to, ranked in [*peers, (8, True)] if "local" in args.rankings else peers:
        name = f"torch-pruning {'global' if ranked else 'local'}, round {round_to}"
        models[name] = torch_pruning_cut(network, target, image_size, round_to, ranked)
    return models


def measure(models: Mapping[str, nn.Module], args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a model: MACs, milliseconds, and how many times faster than the dense one."""
    sessions = {name: runtime(model, args.image_size) for name, model in models.items()}
    times = {}
    for batch in args.batches:
        images = torch.rand(batch, 3, args.image_size, args.image_size)
        rounds = max(3, args.rounds // batch)
        times[f"onnxruntime b{batch}"] = in_turns(sessions, images, args.rounds)
        times[f"eager b{batch}"] = in_turns(models, images, rounds)
    example = torch.zeros(1, 3, args.image_size, args.image_size)
    whole = count_macs(models["dense"], example)
    return [
        {
            "model": name,
            "macs": count_macs(model, example) / whole,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "ms": {way: taken[name] for way, taken in times.items()},
            "times_faster": {way: taken["dense"] / taken[name] for way, taken in times.items()},
        }
        for name, model in models.items()
    ]


def print_rows(size: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Return the table of one network."""
    ways = list(rows[0]["ms"])
    print(f"{'YOLOv8' + size:<30}  MACs" + "".join(f"{way:>16}" for way in ways))
    for row in rows:
        cells = "".join(f"{row['times_faster'][w]:>7.2f}x{row['ms'][w]:>6.1f}ms" for w in ways)
        print(f"{row['model']:<30} {row['macs']:>5.3f}{cells}", flush=True)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sizes", nargs="+", default=["n", "s"])
    add("--weights", type=Path, help="weights of YOLOv8n; random without")
    add("--target", type=float, default=0.5, help="fraction of the MACs that remains")
    add("--image-size", type=int, default=320)
    add("--batches", type=int, nargs="+", default=[1, 8])
    add("--rounds", type=int, default=40, help="at batch 1 (eager: divided by the batch)")
    add("--output", type=Path, default=Path("benchmarks/results/payoff.json"))
    add("--rankings", nargs="+", choices=get_args(Ranking), default=["global", "local"])
    add("--round-to", type=int, nargs="+", default=[8, 16])
    add("--quick", action="store_true", help="n at 64 px, batch 1, global, round 8, three rounds")
    args = parser.parse_args()
    if args.quick:
        args.rankings, args.round_to = ["global"], [8]
        args.sizes, args.image_size, args.batches, args.rounds = ["n"], 64, [1], 3
    return args


def main() -> None:
    """Run, print and write the benchmark."""
    args = arguments()
    torch.set_num_threads(1)
    results = {}
    for size in args.sizes:
        network = dense(size, args.weights)
        results[size] = measure(candidates(network, args), args)
        print_rows(size, results[size])
    result = {
        "target": args.target,
        "image_size": args.image_size,
        "rows": results,
        "threads": 1,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "torch-pruning")},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
