"""Time what holding masks costs in a training step, beside elementwise masks.

    python benchmarks/masking.py

Prints a table and writes it as JSON. Half of the channels of every prunable layer are masked, and
each model is trained on one batch in memory with SGD and momentum, in three variants that take
turns:

- plain: nothing is masked;
- held: ``ChannelMask.hold``; what it does is timed by itself, within the step, right after the
  optimizer's, and counted as a fraction of the same step's time;
- elementwise: ``torch.nn.utils.prune.custom_from_mask`` on the same weights and biases, which is
  what PyTorch offers; its cost is the difference of the medians of both steps, forward, backward
  and all.

``index_fill`` is the simplest way to hold the same masks: one ``index_fill_`` for the rows and one
for the columns of every tensor, timed right after the held one. Medians over the rounds, processor
time: what a busy machine does not disturb.
"""

import argparse
import copy
import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from lightning_prune.detection.data.digits import DigitsDetectionDataModule
from lightning_prune.detection.module import DetectionModule
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.mask import ChannelMask, channel_slices

HERE = Path(__file__).resolve().parent
Loss = Callable[[nn.Module], Tensor]


def yolov8(size: Any, batch_size: int, side: int) -> tuple[nn.Module, Any, Loss]:
    """Return a YOLOv8, an input to trace it with, and its loss on a batch of digits."""
    model = DetectionModule(num_classes=10, size=size, image_size=side)
    data = DigitsDetectionDataModule(
        train_images=batch_size, val_images=1, test_images=1, image_size=side, batch_size=batch_size
    )
    data.setup("fit")
    images, targets = next(iter(data.collection_dataloader()))
    return model, model.example_input_array, lambda m: m.loss(m.network(images), targets).total


def resnet50(batch_size: int, side: int) -> tuple[nn.Module, Any, Loss]:
    """Return a ResNet-50, an input to trace it with, and its loss on a batch of noise."""
    model = torchvision.models.resnet50()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch_size, 3, side, side, generator=generator)
    label = torch.arange(batch_size)
    return model, images[:1], lambda m: F.cross_entropy(m(images), label)


MODELS: dict[str, Callable[[int, int], tuple[nn.Module, Any, Loss]]] = {
    "yolov8n": lambda batch, side: yolov8("n", batch, side),
    "yolov8s": lambda batch, side: yolov8("s", batch, side),
    "resnet50": resnet50,
}
SETTINGS = {"yolov8n": (8, 320), "yolov8s": (8, 320), "resnet50": (32, 64)}


def half_of(groups: Any) -> PruningPlan:
    """Keep a random half of the channels of every group."""
    generator = torch.Generator().manual_seed(0)
    keep = {
        name: torch.randperm(g.channels, generator=generator)[: -(-g.channels // 2)].sort()[0]
        for name, g in groups.items()
    }
    return PruningPlan(keep, {name: group.channels for name, group in groups.items()})


class Variant:
    """A model with its optimizer, its loss, and perhaps something after every step."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        self.model, self.loss = model.train(), loss
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, 1e-3, momentum=0.9, weight_decay=5e-4)

    def step(self) -> float:
        """Train one step; return its processor time."""
        begin = time.process_time()
        self.optimizer.zero_grad()
        self.loss(self.model).backward()
        self.optimizer.step()
        return time.process_time() - begin


def timed(work: Callable[[], Any]) -> float:
    """Return the processor time of a call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def elementwise(model: nn.Module, groups: Any, plan: PruningPlan) -> None:
    """Mask the same weights and biases with PyTorch's own masks."""
    masks: dict[tuple[nn.Module, str], Tensor] = {}
    for part in channel_slices(model, groups, plan):
        if isinstance(part.values, nn.Parameter):
            key = part.owner, part.tensor
            mask = masks.setdefault(key, torch.ones_like(part.values, requires_grad=False))
            mask.index_fill_(part.dim, part.index, 0)
    for (module, name), mask in masks.items():
        prune.custom_from_mask(module, name, mask)


def measure(name: str, batch_size: int, side: int, rounds: int) -> dict[str, Any]:
    """Measure one model; return the row of the table."""
    torch.manual_seed(0)
    model, example, loss = MODELS[name](batch_size, side)
    groups = trace_groups(model, example)
    plan = half_of(groups)
    plain, held, peer = (Variant(copy.deepcopy(model), loss) for _ in range(3))
    mask = ChannelMask(held.model, groups, plan)
    mask.apply()
    elementwise(peer.model, groups, plan)
    peer = Variant(peer.model, loss)  # the parameters are new ones
    slices = [
        part
        for part in channel_slices(held.model, groups, plan)
        if isinstance(part.values, nn.Parameter) and len(part.index)
    ]

    @torch.no_grad()
    def index_fill() -> None:
        for part in slices:
            part.values.index_fill_(part.dim, part.index, 0)

    taken: dict[str, list[float]] = {
        k: [] for k in ("plain", "held", "elementwise", "hold", "index_fill")
    }
    for number in range(rounds + 2):
        times = {"plain": plain.step(), "elementwise": peer.step(), "held": held.step()}
        times["hold"] = timed(mask.apply)
        times["held"] += times["hold"]
        held.step()  # as far from the last masking as the held one was
        times["index_fill"] = timed(index_fill)
        if number >= 2:  # the first ones compile and fill caches
            for key, value in times.items():
                taken[key].append(value)
    assert not mask.violations()
    middle = {key: float(np.median(values)) for key, values in taken.items()}
    weights = sum(p.numel() for p in held.model.parameters())
    kept = sum(p.numel() - int((p == 0).sum()) for p in held.model.parameters())
    return {
        "model": name,
        "batch_size": batch_size,
        "image_size": side,
        "groups": len(groups),
        "weights": weights,
        "weights_masked": weights - kept,
        "seconds": middle,
        "share_of_step": {
            "held": middle["hold"] / middle["plain"],
            "index_fill": middle["index_fill"] / middle["plain"],
            "elementwise": middle["elementwise"] / middle["plain"] - 1,
        },
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=11, help="steps whose median is reported")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "masking.json")
    parser.add_argument("--quick", action="store_true", help="YOLOv8n at 64 px, one round")
    args = parser.parse_args()
    if args.quick:
        args.models, args.rounds = ["yolov8n"], 1
    return args


def main() -> None:
    """Run, print and write the benchmark."""
    args = arguments()
    torch.set_num_threads(1)
    rows = []
    print("model      step without   held          index_fill     elementwise   (of the step)")
    for name in args.models:
        batch_size, side = (2, 64) if args.quick else SETTINGS[name]
        rows.append(measure(name, batch_size, side, args.rounds))
        seconds, share = rows[-1]["seconds"], rows[-1]["share_of_step"]
        print(
            f"{name:10s}{1000 * seconds['plain']:9.1f} ms"
            f"{1000 * seconds['hold']:8.2f} ms {share['held']:6.2%}"
            f"{1000 * seconds['index_fill']:8.2f} ms {share['index_fill']:6.2%}"
            f"{share['elementwise']:12.1%}"
        )
    result = {
        "rows": rows,
        "threads": 1,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "torchvision", "numba", "numpy")},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
