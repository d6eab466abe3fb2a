"""Networks trained on digits, made smaller without labels: accuracy before and after.

    python benchmarks/compress.py
    python benchmarks/compress.py --models resnet18 unet --seeds 0

torchvision's ResNet-18 and ten small networks (those of ``trained_models.py``) are trained on
scikit-learn's digits; then each is cut to half its MACs with 256 training pictures and no label:
by group norm in equal parts with norms estimated again (what is done without this), by
``compress`` without a gradient (``walk``), and with label-free steps behind it (``steps``). The
accuracy of the U-Net is that of its pixels.
"""

import argparse
import copy
import json
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from payoff import largest
from torch import Tensor, nn
from trained_models import digits, predictions, task, train
from trained_networks import NETWORKS

from lightning_prune.engine.compress import compress
from lightning_prune.functional.widths.width import clip_width
from lightning_prune.graph.macs import MacModel, count_macs
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.recalibrate import recalibrate_norms

HERE = Path(__file__).resolve().parent
Row = dict[str, Any]


class Grey(nn.Module):
    """torchvision's ResNet-18 for grey pictures of 8 x 8, shown at 32 x 32."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet18

        self.net = resnet18(num_classes=10)
        self.net.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return logits (B, 10)."""
        out: Tensor = self.net(nn.functional.interpolate(pictures, scale_factor=4.0))
        return out


MODELS = {"resnet18": Grey, **NETWORKS}


def by_norm(model: nn.Module, pictures: list[Tensor], target: float) -> nn.Module:
    """Return a copy cut to equal parts by group norm, its batch norms estimated again."""
    cut = copy.deepcopy(model)
    groups = build_groups(cut, pictures[0][:2])
    macs = MacModel.of(cut, groups, pictures[0][:1])
    low, high = 0.0, 1.0
    widths: dict[str, int] = {}
    for _ in range(20):
        kept = (low + high) / 2
        tried = {
            name: clip_width(max(1, round(kept * g.channels)), g.channels, None, g.step).width
            for name, g in groups.items()
        }
        if macs.remaining(tried) <= target * macs.total:
            low, widths = kept, tried
        else:
            high = kept
    plan = largest(cut, groups, widths)
    ChannelMask(cut, groups, plan).apply()
    cut_channels(cut, groups, plan)
    cut.train()
    recalibrate_norms(cut, pictures, lambda net, batch: net(batch))
    return cut.eval()


def measure(name: str, seed: int, epochs: int, target: float, steps: int) -> Row:
    """Train one network and cut it in three ways."""
    torch.manual_seed(seed)
    model = MODELS[name]()
    learned, tested = (task(name, split, seed) for split in digits(seed))
    train(model, learned, epochs, seed)
    inputs, targets = tested
    pictures = list(learned[0][:256].split(32))
    whole = count_macs(model, inputs[:1])

    def accuracy(net: nn.Module) -> float:
        return float((predictions(net, inputs) == targets).float().mean())

    row: Row = {"dense": accuracy(model), "norm": accuracy(by_norm(model, pictures, target))}
    for how, count in (("walk", 0), ("steps", steps)):
        net = copy.deepcopy(model)
        begin = time.process_time()
        found = compress(net, pictures, target, steps=count, round_to=4, seed=seed)
        row[how] = accuracy(net)
        row[f"{how}_seconds"] = round(time.process_time() - begin, 1)
        row["macs"] = count_macs(net, inputs[:1]) / whole
        row[f"{how}_agreement"] = found.agreement
    return row


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20, help="of training")
    parser.add_argument("--macs", type=float, default=0.5, help="fraction that remains")
    parser.add_argument("--steps", type=int, default=100, help="label-free steps")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "compress.json")
    parser.add_argument("--quick", action="store_true", help="one network, two epochs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.quick:
        arguments.models, arguments.seeds, arguments.epochs = ["resnet"], [0], 2
    print(
        f"{'':12s}{'MACs':>7s}{'dense':>8s}{'norm':>8s}{'walk':>8s}{'steps':>8s}{'s':>7s}{'s':>7s}"
    )
    rows: dict[str, Row] = {}
    for name in arguments.models:
        runs = [
            measure(name, seed, arguments.epochs, arguments.macs, arguments.steps)
            for seed in arguments.seeds
        ]
        rows[name] = {key: [run[key] for run in runs] for key in runs[0]}
        mean = {key: statistics.fmean(rows[name][key]) for key in ("macs", "dense", "norm", "walk",
                "steps", "walk_seconds", "steps_seconds")}  # fmt: skip
        print(
            f"{name:12s}{mean['macs']:7.3f}{mean['dense']:8.3f}{mean['norm']:8.3f}"
            f"{mean['walk']:8.3f}{mean['steps']:8.3f}{mean['walk_seconds']:7.1f}"
            f"{mean['steps_seconds']:7.1f}",
            flush=True,
        )
    content = {
        "rows": rows, "seeds": arguments.seeds, "epochs": arguments.epochs,
        "mac_target": arguments.macs, "label_free_steps": arguments.steps, "threads": 1,
        "python": platform.python_version(), "torch": version("torch"),
    }  # fmt: skip
    arguments.output.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
