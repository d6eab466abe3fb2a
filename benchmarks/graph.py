"""Time how groups are found and cut, beside torch-pruning's dependency graph.

    python benchmarks/graph.py
    python benchmarks/graph.py --models swin_t yolov8x --rounds 5

Prints a table and writes it as JSON. Both find the groups of ResNet-152, DenseNet-201, ViT-B,
ConvNeXt-B, Swin-T (torchvision), YOLOv8x (our own network) and YOLO11x (ultralytics, where it is
installed), and cut half of the channels of each, the first ones. Ours: ``trace_groups`` (labels),
``build_groups`` (labels and trial cut) and ``cut_channels``; theirs: ``build_dependency``, and
``get_all_groups`` with ``prune``, with the layers that produce the output left out. They take
turns on one thread; medians of processor time, which other processes disturb less than the clock.
Images are small: the graph's cost is what is compared, not that of a forward pass, which both do.
Each has 60 s in a process of its own before its rounds: who never returns is left out.
"""

import argparse
import copy
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from torch import nn
from torch.nn.modules.conv import _ConvNd
from zoo_judge import half_of
from zoo_peer import output_layers
from zoo_process import Limited

from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import count_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.cut import cut_channels

HERE = Path(__file__).resolve().parent
ROOTS = (_ConvNd, nn.Linear)
OURS, THEIRS = ("build", "trial", "cut"), ("build", "groups", "cut")
MEGABYTES = 8000
Row = dict[str, Any]


def torchvision_model(name: str, size: int) -> nn.Module:
    """Return a classifier for images of that size."""
    from torchvision import models

    options = {"image_size": size} if name.startswith("vit") else {}
    model: nn.Module = models.get_model(name, weights=None, num_classes=10, **options)
    return model


def yolov8x(_size: int) -> nn.Module:
    """Return the largest YOLOv8."""
    return YOLOv8("x", num_classes=80)


def yolo11x(_size: int) -> nn.Module:
    """Return YOLO11x (AGPL: used where it is installed, never read)."""
    os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="1", YOLO_VERBOSE="false")
    from ultralytics.nn.tasks import DetectionModel

    model: nn.Module = DetectionModel("yolo11x.yaml", nc=80, verbose=False)
    return model


CLASSIFIERS = ("resnet152", "densenet201", "vit_b_16", "convnext_base", "swin_t")
MODELS: dict[str, Callable[[int], nn.Module]] = {
    **{name: partial(torchvision_model, name) for name in CLASSIFIERS},
    "yolov8x": yolov8x,
    "yolo11x": yolo11x,
    "tiny": lambda _: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)),
}
DEFAULT = [name for name in MODELS if name != "tiny"]


def timed(times: Row, step: str, work: Callable[[], Any]) -> Any:
    """Do the work and note its processor time."""
    begin = time.process_time()
    result = work()
    times[step] = time.process_time() - begin
    return result


def ours(model: nn.Module, example: Any) -> Row:
    """Find and cut the groups of a model; it is cut afterwards."""
    times: Row = {}
    timed(times, "build", lambda: trace_groups(model, example))
    groups: ChannelGroups = timed(times, "trial", lambda: build_groups(model, example))
    plan = half_of(groups)
    timed(times, "cut", lambda: cut_channels(model, groups, plan))
    return {"seconds": times, "groups": len(groups)}


def theirs(model: nn.Module, example: Any) -> Row:
    """Do the same with torch-pruning's dependency graph."""
    times: Row = {}
    ignored = output_layers(model, example)
    graph = tp.DependencyGraph()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timed(times, "build", lambda: graph.build_dependency(model, example_inputs=example))
        all_groups = partial(graph.get_all_groups, ignored, list(ROOTS))
        groups = timed(times, "groups", lambda: list(all_groups()))
        timed(times, "cut", lambda: prune_half(graph, groups))
    return {"seconds": times, "groups": len(groups)}


def prune_half(graph: tp.DependencyGraph, groups: list[Any]) -> None:
    """Prune the first half of the channels of each of torch-pruning's groups."""
    for group in groups:
        dep = group[0].dep
        half = list(range(graph.get_out_channels(dep.target.module) // 2))
        if half:
            graph.get_pruning_group(dep.target.module, dep.handler, half).prune()


def attempt(find: Callable[[nn.Module, Any], Row], model: nn.Module, example: Any) -> Row:
    """Find and cut on a copy; return the times and the MACs, or why there are none."""
    net = copy.deepcopy(model)
    try:
        return find(net, example) | {"macs": count_macs(net.eval(), example)}
    except Exception as error:
        return {"fault": f"{type(error).__name__}: {error}"[:200]}


def measure(name: str, size: int, rounds: int, seconds: int) -> Row:
    """Measure one model; return its medians.

    The first round is one in processes of its own: who fails or never returns is left out.
    """
    torch.manual_seed(0)
    model = MODELS[name](size).eval()
    example = torch.rand(1, 3, size, size)
    whole = count_macs(model, example)
    sides = {"ours": partial(attempt, ours), "torch_pruning": partial(attempt, theirs)}
    row: Row = {"macs": whole}
    for who, work in sides.items():
        row[who] = outcome_of(Limited(partial(work, model, example), seconds, MEGABYTES).wait())
    left = [who for who in sides if "fault" not in row[who]]
    runs: dict[str, list[Row]] = {who: [] for who in left}
    for turn in range(rounds):
        for who in left[:: 1 - 2 * (turn % 2)]:
            runs[who].append(sides[who](model, example))
    for who, found in runs.items():
        times = {s: float(np.median([r["seconds"][s] for r in found])) for s in row[who]["seconds"]}
        row[who] = {
            "seconds": times,
            "groups": found[0]["groups"],
            "left": round(found[0]["macs"] / whole, 4),
        }
    return row | ratios(row)


def ratios(row: Mapping[str, Any]) -> Row:
    """Return our time as a multiple of theirs for each step, where both came to an end.

    ``build``: our labels beside their graph; ``groups``: beside their graph and list of groups,
    which is what labels give; ``cut``; ``whole``: what a user waits for, our trial included.

    >>> ratios({"ours": {"seconds": {"build": 1.0, "trial": 3.0, "cut": 1.0}},
    ...         "torch_pruning": {"seconds": {"build": 2.0, "groups": 2.0, "cut": 2.0}}})
    {'ratios': {'build': 0.5, 'groups': 0.25, 'cut': 0.5, 'whole': 0.667}}
    """
    if any("seconds" not in row[who] for who in ("ours", "torch_pruning")):
        return {}
    mine, other = row["ours"]["seconds"], row["torch_pruning"]["seconds"]
    both = other["build"] + other["groups"]
    found = {
        "build": (mine["build"], other["build"]),
        "groups": (mine["build"], both),
        "cut": (mine["cut"], other["cut"]),
        "whole": (mine["trial"] + mine["cut"], both + other["cut"]),
    }
    return {"ratios": {step: round(a / b, 3) for step, (a, b) in found.items() if b > 0}}


def outcome_of(outcome: Row) -> Row:
    """Return what a process gave, or why it gave nothing."""
    if "value" in outcome:
        return dict(outcome["value"])
    if outcome.get("kind") == "ModuleNotFoundError":
        return {"skipped": f"left out: {outcome['error']}; install it beside the project"}
    return {"fault": outcome.get("hang") or f"{outcome['kind']}: {outcome['error']}"[:200]}


def line(name: str, row: Row) -> str:
    """Return a line of the table, or the sentence on why there is none."""
    if "ours" not in row:
        return f"{name:14s} {row.get('skipped') or row['fault']}"
    cells, faults = f"{name:14s}", []
    for who, steps in (("ours", OURS), ("torch_pruning", THEIRS)):
        taken = row[who].get("seconds", {})
        cells += "".join(f"{taken[s]:8.2f}" if taken else f"{'-':>8s}" for s in steps)
        faults += [f"{who}: {row[who]['fault']}"] if "fault" in row[who] else []
    cells += "".join(f"{value:8.2f}" for value in row.get("ratios", {}).values())
    return "  ".join([cells, *faults])


def head() -> str:
    """Return the two lines above the table."""
    steps = (*OURS, *THEIRS, "build", "groups", "cut", "whole")
    upper = f"{'':14s}{'ours':>24s}{'torch-pruning':>24s}{'ours / theirs':>32s}"
    return upper + f"\n{'seconds':14s}" + "".join(f"{step:>8s}" for step in steps)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=DEFAULT)
    parser.add_argument("--rounds", type=int, default=3, help="the median is reported")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=60, help="processor time of one try")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "graph.json")
    parser.add_argument("--quick", action="store_true", help="three layers, one round")
    args = parser.parse_args()
    if args.quick:
        args.models, args.rounds = ["tiny"], 1
    return args


def main() -> None:
    """Run, print and write the benchmark."""
    args = arguments()
    torch.set_num_threads(1)
    rows: dict[str, Row] = {}
    print(head())
    for name in args.models:
        work = partial(measure, name, args.image_size, args.rounds, args.seconds)
        limit = 2 * args.seconds * (args.rounds + 1)
        rows[name] = outcome_of(Limited(work, limit, 2 * MEGABYTES).wait())
        print(line(name, rows[name]), flush=True)
    result = {
        "rows": rows,
        "image_size": args.image_size,
        "threads": 1,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {n: version(n) for n in ("torch", "torchvision", "torch-pruning")},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
