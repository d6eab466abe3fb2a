"""Time what the channel regularizer adds to a training step, beside torch-pruning's.

    python benchmarks/regularizer.py

Prints a table and writes it as JSON. Each model is trained on one batch in memory with SGD and
momentum; between backward pass and optimizer step the penalty's gradient is added by

- ours: ``ChannelRegularization.apply`` on all prunable layers, as ``ChannelRegularizer`` calls it,
  the set of the optimizer's parameters included;
- torch_pruning: ``GroupNormPruner.regularize(alpha=2**4)`` on the same groups;

in the same step, one after the other, in an order that changes from step to step. Both write the
same gradient: the largest difference is measured and reported, as a fraction of the largest entry.
The step is what remains when both are taken off. Medians over the rounds, processor time: what a
busy machine does not disturb.
"""

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.detection.data.digits import DigitsDetectionDataModule
from lightning_prune.detection.network.loss import DetectionLoss
from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.graph.trace import trace_groups
from lightning_prune.policies.penalties.channel_regularization import ChannelRegularization

HERE = Path(__file__).resolve().parent
REG = 5e-3
Work = Callable[[], Any]


def yolov8(size: str, batch_size: int, side: int) -> tuple[nn.Module, Work]:
    """Return a YOLOv8 and its loss on a batch of digits."""
    network, loss = YOLOv8(size, num_classes=10), DetectionLoss()
    data = DigitsDetectionDataModule(
        train_images=batch_size, val_images=1, test_images=1, image_size=side, batch_size=batch_size
    )
    data.setup("fit")
    images, targets = next(iter(data.collection_dataloader()))
    return network, lambda: loss(network(images), targets).total


def resnet50(batch_size: int, side: int) -> tuple[nn.Module, Work]:
    """Return a ResNet-50 and its loss on a batch of noise."""
    network = torchvision.models.resnet50()
    images, label = torch.randn(batch_size, 3, side, side), torch.arange(batch_size)
    return network, lambda: F.cross_entropy(network(images), label)


def raw_outputs(network: nn.Module, images: Tensor) -> Any:
    """Run a network up to its last layers: what decodes boxes holds no channels."""
    return network.raw_maps(images) if isinstance(network, YOLOv8) else network(images)


class Regularizers:
    """Ours and torch-pruning's, on the same groups of one network.

    Args:
        network: The network.
        side: Side of its images, pixels.
    """

    def __init__(self, network: nn.Module, side: int) -> None:
        example = torch.zeros(1, 3, side, side)
        begin = time.process_time()
        groups = trace_groups(network, example)
        self.groups = len(groups)
        self.channels = sum(group.channels for group in groups.values())
        self.ours = ChannelRegularization(network, groups, reg=REG)
        self.ours.apply(set())
        self.setup_seconds = time.process_time() - begin
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.theirs = tp.pruner.GroupNormPruner(
                network,
                example,
                importance=tp.importance.GroupMagnitudeImportance(p=2),
                reg=REG,
                ignored_layers=[network.get_submodule(name) for name in groups.refused],
                forward_fn=raw_outputs,
            )
        self.network = network

    def variants(self, optimizer: torch.optim.Optimizer) -> dict[str, Work]:
        """Return what is timed, by name."""

        def ours() -> None:
            own = {id(p) for group in optimizer.param_groups for p in group["params"]}
            self.ours.apply(own)

        def theirs() -> None:
            self.theirs.regularize(self.network, alpha=2**4)

        return {"ours": ours, "torch_pruning": theirs}

    def difference(self) -> float:
        """Return the largest difference of the gradients, as a fraction of the largest entry."""
        parameters = list(self.network.parameters())
        results = []
        for add in (self.ours.apply, lambda: self.theirs.regularize(self.network, alpha=2**4)):
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)
            add()
            results.append([p.grad for p in parameters])
        pairs = list(zip(*results, strict=True))
        largest = max(float(b.abs().max()) for _, b in pairs)
        return max(float((a - b).abs().max()) for a, b in pairs) / largest


def timed(work: Work) -> float:
    """Return the processor seconds of something."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def measure(network: nn.Module, loss: Work, both: Regularizers, rounds: int) -> dict[str, float]:
    """Return the median processor seconds of a step without, and of each regularizer."""
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9)
    variants = list(both.variants(optimizer).items())
    taken: dict[str, list[float]] = {name: [] for name in ("step", *dict(variants))}
    network.train()
    for number in range(rounds + 1):

        def backward() -> None:
            optimizer.zero_grad()
            loss().backward()

        step = timed(backward)
        spent = {name: timed(work) for name, work in variants[:: 1 if number % 2 else -1]}
        step += timed(optimizer.step)
        if number:  # the first compiles and fills caches
            for name, seconds in {"step": step, **spent}.items():
                taken[name].append(seconds)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}


def one_model(name: str, batch_size: int, side: int, rounds: int) -> dict[str, Any]:
    """Measure one model; return the row of the table."""
    torch.manual_seed(0)
    is_resnet = name == "resnet50"
    network, loss = resnet50(batch_size, side) if is_resnet else yolov8(name[-1], batch_size, side)
    both = Regularizers(network, side)
    difference = both.difference()
    seconds = measure(network, loss, both, rounds)
    return {
        "model": name,
        "batch_size": batch_size,
        "image_size": side,
        "weights": sum(p.numel() for p in network.parameters()),
        "groups": both.groups,
        "channels": both.channels,
        "largest_difference": difference,
        "setup_seconds": both.setup_seconds,
        "seconds": seconds,
        "share_of_step": {
            name: seconds[name] / seconds["step"] for name in ("ours", "torch_pruning")
        },
        "torch_pruning_times_ours": seconds["torch_pruning"] / seconds["ours"],
    }


def print_row(row: dict[str, Any]) -> None:
    """Print the lines of one model."""
    seconds, share = row["seconds"], row["share_of_step"]
    print(
        f"\n{row['model']}, batch {row['batch_size']}, {row['image_size']} px, "
        f"{row['weights'] / 1e6:.1f} M weights, {row['groups']} groups, step "
        f"{1000 * seconds['step']:.0f} ms, gradients equal to {row['largest_difference']:.0e}"
    )
    for name in ("ours", "torch_pruning"):
        print(f"  {name:14s}{1000 * seconds[name]:9.2f} ms  {share[name]:8.2%} of the step")
    print(f"  torch_pruning takes {row['torch_pruning_times_ours']:.1f} times as long")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["yolov8n", "yolov8s", "resnet50"])
    parser.add_argument("--rounds", type=int, default=21, help="steps whose median is reported")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "regularizer.json")
    parser.add_argument("--quick", action="store_true", help="YOLOv8n at 64 px, twice")
    args = parser.parse_args()
    if args.quick:
        args.models, args.rounds = ["yolov8n"], 2
    return args


def main() -> None:
    """Run, print and write the benchmark."""
    args = arguments()
    torch.set_num_threads(1)
    rows = []
    for name in args.models:
        batch_size, side = (32, 64) if name == "resnet50" else (8, 320)
        if args.quick:
            batch_size, side = 2, 64
        rows.append(one_model(name, batch_size, side, args.rounds))
        print_row(rows[-1])
    result = {
        "rows": rows,
        "reg": REG,
        "threads": 1,
        "device": "cpu",
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "torchvision", "torch-pruning")},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwritten to {args.output}")


if __name__ == "__main__":
    main()
