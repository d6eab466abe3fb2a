"""Masked and cut networks with trained weights on real inputs: accuracy, MACs and milliseconds.

    python benchmarks/trained_models.py
    python benchmarks/trained_models.py --models vit swin --seeds 0

Ten small networks, one of each kind that is pruned in practice, are trained on scikit-learn's
digits (8 x 8; 1437 pictures to train, 360 to test) for a few seconds, and YOLOv8n comes with its
COCO weights where they are given. Half of the channels of every group (of the detector's a tenth)
are masked, those of the smallest group norms, and a copy is cut; heads, the residual stream and
the channels under norms are groups like others.

Shown are the accuracy of the dense, the masked and the cut network on the test pictures, on how
many of them the two differ, the accuracy after further training of the cut network for as many
epochs, its MACs, and the time of a forward pass of 64 pictures as a fraction of the dense one's:
eager and in ONNX Runtime on one thread, medians of processor time, the models taking turns. The
accuracy of the U-Net is that of its pixels, of the detector the mAP at IoU 0.5.
"""

import argparse
import copy
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from payoff import in_turns, largest
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from trained_networks import NETWORKS

from lightning_prune.detection.average_precision import DetectionAveragePrecision
from lightning_prune.detection.data.yolo_folder import YoloFolderDataModule
from lightning_prune.detection.module import DetectionModule
from lightning_prune.export.onnx_model import onnx_model
from lightning_prune.functional.widths.width import clip_width
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import count_macs
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask

HERE = Path(__file__).resolve().parent
DATA = HERE.parent.parent / "shared" / "data"
Row = dict[str, Any]
Split = tuple[Tensor, Tensor]


def digits(seed: int) -> tuple[Split, Split]:
    """Return pictures (N, 1, 8, 8) in [0, 1] and labels (N,), to train and to test."""
    pictures, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    pictures = pictures.float().reshape(-1, 1, 8, 8) / 16
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    train, test = order[:1437], order[1437:]
    return (pictures[train], labels[train]), (pictures[test], labels[test])


def task(name: str, split: Split, seed: int) -> Split:
    """Return inputs and targets; the U-Net finds the strokes in noisy pictures."""
    pictures, labels = split
    if name != "unet":
        return pictures, labels
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(seed))
    return pictures + 0.3 * noise, (pictures[:, 0] > 0.5).long()


def train(model: nn.Module, data: Split, epochs: int, seed: int) -> None:
    """Train with AdamW, a one-cycle schedule and batches of 64."""
    inputs, targets = data
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    steps = epochs * -(-len(inputs) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs), generator=generator).split(64):
            loss = F.cross_entropy(model(inputs[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def predictions(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the class of every picture, or of every pixel."""
    return model.eval()(inputs).argmax(1)


def fraction(groups: ChannelGroups, kept: float) -> dict[str, int]:
    """Return widths of a fraction of every group, in the steps in which its channels go."""
    return {
        name: clip_width(
            max(1, round(group.channels * kept)), group.channels, None, group.step
        ).width
        for name, group in groups.items()
    }


def pruned(
    model: nn.Module, example: Tensor, kept: float
) -> tuple[ChannelGroups, PruningPlan, nn.Module, nn.Module]:
    """Return groups, plan, and a masked and a cut copy."""
    groups = build_groups(model, example)
    plan = largest(model, groups, fraction(groups, kept))
    masked, cut = copy.deepcopy(model), copy.deepcopy(model)
    ChannelMask(masked, groups, plan).apply()
    ChannelMask(cut, groups, plan).apply()
    cut_channels(cut, groups, plan)
    return groups, plan, masked.eval(), cut.eval()


def times(models: dict[str, nn.Module], inputs: Tensor, rounds: int) -> Row:
    """Return milliseconds of each model, eager and in ONNX Runtime."""
    runs = {f"eager {name}": model for name, model in models.items()}
    sessions = {f"onnx {name}": runtime(model, inputs) for name, model in models.items()}
    return in_turns({**runs, **sessions}, inputs, rounds)


def runtime(model: nn.Module, inputs: Tensor) -> Callable[[Tensor], Any]:
    """Return a model in ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = onnx_model(model, inputs, ("images",))
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.numpy()})


def measure(name: str, seed: int, epochs: int, rounds: int) -> Row:
    """Train, mask, cut and train again one network."""
    torch.manual_seed(seed)
    model = NETWORKS[name]()
    learned, tested = (task(name, split, seed) for split in digits(seed))
    begin = time.process_time()
    train(model, learned, epochs, seed)
    seconds = time.process_time() - begin
    inputs, targets = tested
    groups, plan, masked, cut = pruned(model, inputs[:2], 0.5)
    found = {
        who: predictions(m, inputs)
        for who, m in (("dense", model), ("masked", masked), ("cut", cut))
    }
    row = compared(found, targets) | {
        "seconds": round(seconds, 1),
        "groups": len(groups),
        "macs": count_macs(cut, inputs[:1]) / count_macs(model, inputs[:1]),
        "removed": 1 - sum(plan.widths().values()) / sum(plan.channels.values()),
        "ms": times({"dense": model, "cut": cut}, inputs[:64], rounds),
    }
    train(cut, learned, epochs, seed + 1)
    row["recovered"] = float((predictions(cut, inputs) == targets).float().mean())
    return row


def compared(found: dict[str, Tensor], targets: Tensor) -> Row:
    """Return accuracies, and how many predictions differ between masked and cut."""
    row: Row = {who: float((own == targets).float().mean()) for who, own in found.items()}
    row["differ"] = int((found["masked"] != found["cut"]).sum())
    row["of"] = targets.numel()
    return row


def detector(rounds: int, side: int = 320) -> Row:
    """Mask and cut a tenth of the channels of YOLOv8n with its COCO weights."""
    weights = DATA / "yolov8n_coco" / "yolov8n_coco.safetensors"
    module = DetectionModule(weights=str(weights), image_size=side).eval()
    data = YoloFolderDataModule(str(DATA / "coco_open"), image_size=side, batch_size=9)
    data.setup("fit")
    batches = list(data.val_dataloader())
    example = torch.zeros(1, 3, side, side)
    network = module.network
    groups, plan, masked, cut = pruned(network, example, 0.9)
    row: Row = {}
    for who, net in (("dense", network), ("masked", masked), ("cut", cut)):
        module.network = net
        metric = DetectionAveragePrecision()
        for images, targets in batches:
            metric.update_batch(module.detect(images), targets, images.shape)
        row[who] = float(metric.summary()["map50"])
    with torch.no_grad():
        both = [(masked(images), cut(images)) for images, _ in batches]
    worst = max(float((a - b).abs().max() / a.abs().max()) for a, b in both)
    return row | {
        "differ": worst,
        "groups": len(groups),
        "macs": count_macs(cut, example) / count_macs(network, example),
        "removed": 1 - sum(plan.widths().values()) / sum(plan.channels.values()),
        "ms": times({"dense": network, "cut": cut}, batches[0][0][:1], max(3, rounds // 5)),
    }


def summary(runs: Sequence[Row]) -> Row:
    """Return the medians over seeds; of the differences the largest."""
    found: Row = {
        key: float(np.median([run[key] for run in runs]))
        for key in ("dense", "masked", "cut", "recovered", "macs", "removed", "groups", "seconds")
        if key in runs[0]
    }
    found["differ"] = max(run["differ"] for run in runs)
    for way in ("eager", "onnx"):
        pairs = [(run["ms"][f"{way} dense"], run["ms"][f"{way} cut"]) for run in runs]
        found[f"{way}_ms"] = [round(float(np.median(part)), 3) for part in zip(*pairs, strict=True)]
        found[way] = round(float(np.median([cut / dense for dense, cut in pairs])), 3)
    return found


HEAD = (
    "| network | groups | dense | masked | cut | differ | recovered | MACs | eager | ONNX Runtime |"
    "\n|---|---|---|---|---|---|---|---|---|---|"
)


def line(name: str, row: Row) -> str:
    """Return a line of the table.

    >>> line("vit", {"groups": 7.0, "dense": 0.97, "masked": 0.5, "cut": 0.5, "differ": 0,
    ...              "recovered": 0.96, "macs": 0.27, "eager": 0.7, "onnx": 0.5,
    ...              "eager_ms": [4.0, 2.8], "onnx_ms": [2.0, 1.0]})
    '| vit | 7 | 0.970 | 0.500 | 0.500 | 0 | 0.960 | 0.270 | 0.70 (2.8 ms) | 0.50 (1.0 ms) |'
    """
    again = f"{row['recovered']:.3f}" if "recovered" in row else "-"
    ways = [f"{row[way]:.2f} ({row[f'{way}_ms'][1]:.1f} ms)" for way in ("eager", "onnx")]
    cells = [
        name, f"{row['groups']:.0f}", *(f"{row[w]:.3f}" for w in ("dense", "masked", "cut")),
        f"{row['differ']:.2g}", again, f"{row['macs']:.3f}", *ways,
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*NETWORKS, "yolov8n"]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=30, help="forward passes; the median counts")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "trained_models.json")
    parser.add_argument("--quick", action="store_true", help="two networks, one epoch, one seed")
    args = parser.parse_args()
    if args.quick:
        args.models, args.seeds, args.epochs, args.rounds = ["resnet", "vit"], [0], 1, 3
    return args


def main() -> None:
    """Run, print and write the benchmark."""
    args = arguments()
    torch.set_num_threads(1)
    result: Row = {
        "seeds": args.seeds, "epochs": args.epochs, "threads": 1,
        "python": platform.python_version(), "machine": platform.machine(),
        "versions": {n: version(n) for n in ("torch", "onnxruntime", "scikit-learn")},
        "rows": {}, "runs": {},
    }  # fmt: skip
    print(HEAD)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for name in args.models:
        if name == "yolov8n":
            if not (DATA / "yolov8n_coco").is_dir():
                print("yolov8n left out: no weights in ../shared/data", file=sys.stderr)
                continue
            runs = [detector(args.rounds)]
        else:
            runs = [measure(name, seed, args.epochs, args.rounds) for seed in args.seeds]
        result["runs"][name], result["rows"][name] = runs, summary(runs)
        print(line(name, result["rows"][name]), flush=True)
        args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
