"""Time what counting the used channels costs in a training step, beside hooks of one's own.

    python benchmarks/tracking.py

Prints a table and writes it as JSON. All layers that ``ChannelResetter`` tracks by default are
tracked, and each model is trained on one batch in memory with SGD and momentum, in three variants
that take turns and start from the same weights:

- plain: nothing is counted; one that was counted and stopped has no hook left and is this one;
- tracked: ``ChannelUsage``, started before the step and stopped after it, as the callback does;
  its hooks, the start and the stop are timed by themselves, within the step, and counted as a
  fraction of the same step's time;
- mean: what one would write, hooks at the same places with
  ``out.abs().mean((0, 2, 3)) > 1e-6`` and a count, timed in the same way.

``difference`` is that of the medians of the whole steps, beside the plain one: how far it strays
from the share is noise of the steps. The counts of both must be the same at the end. In
``resnet50_dead`` a tenth of the channels is killed by its norm's bias: that a channel is dead only
all of its values can say. Medians over the rounds, processor time: what a busy machine does not
disturb.
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

from lightning_prune.detection.data.digits import DigitsDetectionDataModule
from lightning_prune.detection.module import DetectionModule
from lightning_prune.graph.outputs import LayerOutput, layer_outputs
from lightning_prune.observe.usage import ChannelUsage
from lightning_prune.policies.layers.resettable_layers import resettable_layers

HERE = Path(__file__).resolve().parent
THRESHOLD = 1e-6
Loss = Callable[[nn.Module], Tensor]


def yolov8(size: Any, batch_size: int, side: int) -> tuple[nn.Module, Any, Loss]:
    """Return a YOLOv8, an input to find its layers with, and its loss on a batch of digits."""
    model = DetectionModule(num_classes=10, size=size, image_size=side)
    data = DigitsDetectionDataModule(
        train_images=batch_size, val_images=1, test_images=1, image_size=side, batch_size=batch_size
    )
    data.setup("fit")
    images, targets = next(iter(data.collection_dataloader()))
    return model, model.example_input_array, lambda m: m.loss(m.network(images), targets).total


def resnet50(batch_size: int, side: int, dead: float = 0.0) -> tuple[nn.Module, Any, Loss]:
    """Return a ResNet-50, an input to find its layers with, and its loss on a batch of noise."""
    model = torchvision.models.resnet50()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch_size, 3, side, side, generator=generator)
    label = torch.arange(batch_size)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            index = torch.randperm(module.num_features, generator=generator)
            module.bias.data[index[: round(dead * len(index))]] = -100.0
    return model, images[:1], lambda m: F.cross_entropy(m(images), label)


MODELS: dict[str, Callable[[int, int], tuple[nn.Module, Any, Loss]]] = {
    "yolov8n": lambda batch, side: yolov8("n", batch, side),
    "yolov8s": lambda batch, side: yolov8("s", batch, side),
    "resnet50": resnet50,
    "resnet50_dead": lambda batch, side: resnet50(batch, side, dead=0.1),
}
SETTINGS = {name: (8, 320) if name.startswith("yolo") else (32, 64) for name in MODELS}


def timed(work: Callable[[], Any]) -> float:
    """Return the processor time of a call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


class Plain:
    """A model with its optimizer and its loss."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        self.model, self.loss = model.train(), loss
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, 1e-3, momentum=0.9, weight_decay=5e-4)

    def step(self) -> None:
        """Train one step."""
        self.optimizer.zero_grad()
        self.loss(self.model).backward()
        self.optimizer.step()


class TimedUsage(ChannelUsage):
    """Usage that adds up the processor time of its hooks."""

    spent = 0.0

    def _hook(self, *arguments: Any) -> Callable[..., None]:
        count = super()._hook(*arguments)

        def timed_count(*values: Any) -> None:
            self.spent += timed(lambda: count(*values))

        return timed_count


class Tracked(Plain):
    """The model with its channels counted."""

    def __init__(self, model: nn.Module, loss: Loss, outputs: dict[str, LayerOutput]) -> None:
        super().__init__(model, loss)
        self.usage = TimedUsage(self.model, outputs, THRESHOLD)

    def step(self) -> None:
        """Train one step; ``usage.spent`` is what counting took in it."""
        self.usage.spent = 0.0
        switching = timed(self.usage.start)
        super().step()
        self.usage.spent += switching + timed(self.usage.stop)

    def counts(self) -> dict[str, Tensor]:
        """Return the counts of every layer."""
        return self.usage.read()[0]


class Mean(Plain):
    """The model with hooks that take the mean of all magnitudes."""

    def __init__(self, model: nn.Module, loss: Loss, outputs: dict[str, LayerOutput]) -> None:
        super().__init__(model, loss)
        self.spent = 0.0
        self.numbers: dict[str, Any] = dict.fromkeys(outputs, 0)
        for output in outputs.values():
            watched = self.model.get_submodule(output.watched)
            watched.register_forward_hook(self.hook(output))

    def hook(self, output: LayerOutput) -> Callable[..., None]:
        """Return the hook of a layer."""
        name, activation = output.layer, output.activation

        def count(out: Tensor) -> None:
            out = out.detach()
            out = out if activation is None else activation(out.clone())
            self.numbers[name] += out.abs().mean((0, 2, 3)) > THRESHOLD

        def timed_count(_module: nn.Module, _inputs: Any, out: Tensor) -> None:
            self.spent += timed(lambda: count(out))

        return timed_count

    def step(self) -> None:
        """Train one step; ``spent`` is what counting took in it."""
        self.spent = 0.0
        super().step()

    def counts(self) -> dict[str, Tensor]:
        """Return the counts of every layer."""
        return self.numbers


def measure(name: str, batch_size: int, side: int, rounds: int) -> dict[str, Any]:
    """Measure one model; return the row of the table."""
    torch.manual_seed(0)
    model, example, loss = MODELS[name](batch_size, side)
    outputs = resettable_layers(model, layer_outputs(model, example), None)
    plain = Plain(copy.deepcopy(model), loss)
    tracked = Tracked(copy.deepcopy(model), loss, outputs)
    mean = Mean(copy.deepcopy(model), loss, outputs)
    taken: dict[str, list[float]] = {
        key: [] for key in ("plain", "tracked", "mean", "tracking", "taking_means")
    }
    for number in range(rounds + 2):
        times = {
            "plain": timed(plain.step),
            "tracked": timed(tracked.step),
            "mean": timed(mean.step),
            "tracking": tracked.usage.spent,
            "taking_means": mean.spent,
        }
        if number >= 2:  # the first ones compile and fill caches
            for key, value in times.items():
                taken[key].append(value)
    seconds = {key: float(np.median(values)) for key, values in taken.items()}
    counts, expected = tracked.counts(), mean.counts()
    return {
        "model": name,
        "batch_size": batch_size,
        "image_size": side,
        "layers": len(outputs),
        "channels": sum(len(count) for count in counts.values()),
        "channels_never_used": sum(int((count == 0).sum()) for count in counts.values()),
        "same_counts": all(torch.equal(counts[layer], expected[layer]) for layer in outputs),
        "hooks_when_off": sum(len(m._forward_hooks) for m in tracked.model.modules()),
        "seconds": seconds,
        "share_of_step": {
            "tracked": float(np.median(np.divide(taken["tracking"], taken["tracked"]))),
            "mean": float(np.median(np.divide(taken["taking_means"], taken["mean"]))),
        },
        "difference": {
            "tracked": seconds["tracked"] / seconds["plain"] - 1,
            "mean": seconds["mean"] / seconds["plain"] - 1,
        },
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=21, help="steps whose median is reported")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "tracking.json")
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
    print(f"{'model':14s}{'plain step':>11s}{'tracked':>18s}{'by steps':>12s}", end="")
    print(f"{'mean of all':>20s}{'by steps':>12s}")
    for name in args.models:
        batch_size, side = (2, 64) if args.quick else SETTINGS[name]
        row = measure(name, batch_size, side, args.rounds)
        rows.append(row)
        seconds, share, difference = row["seconds"], row["share_of_step"], row["difference"]
        print(
            f"{name:14s}{1000 * seconds['plain']:8.1f} ms"
            f"{1000 * seconds['tracking']:8.2f} ms {share['tracked']:6.2%}"
            f"{difference['tracked']:12.2%}"
            f"{1000 * seconds['taking_means']:10.2f} ms {share['mean']:6.2%}"
            f"{difference['mean']:12.2%}"
        )
        print(
            f"  {row['layers']} layers, {row['channels_never_used']} of {row['channels']} channels "
            f"never used; counts the same: {row['same_counts']}; hooks when off: "
            f"{row['hooks_when_off']}"
        )
    result = {
        "rows": rows,
        "threads": 1,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "torchvision", "numpy")},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
