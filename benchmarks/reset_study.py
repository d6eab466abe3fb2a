"""Study what resetting unused channels does to dead channels and to mAP on the digits.

    python benchmarks/reset_study.py --seeds 0 1 2

Trains YOLOv8n on 250 of the built-in digits' canvases, otherwise with the shipped configuration and
for its 12 dense epochs, in four variants per seed:

- silu: as shipped; nothing is reset;
- relu: ReLU instead of SiLU;
- relu_hot: ReLU and ten times the learning rate;
- relu_hot_reset: the same, and unused channels (at most 1e-6) are reset.

Resets come at the start of epochs 4 and 8 (`+pruning=channel_reset`). Dead: never above 1e-6 on
average in any batch of the last epoch. Prints a table and writes it as JSON after every run; runs
that are in the file are not repeated.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import hydra
import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import nn

from lightning_prune.cli.train import run
from lightning_prune.graph.outputs import layer_outputs
from lightning_prune.observe.usage import ChannelUsage
from lightning_prune.report.report_data import read_report
from lightning_prune.runs.configuration.config_folder import config_folder

HERE = Path(__file__).resolve().parent
QUIET = "pruning.channel_resetter.every_n_epochs=null"
RELU = "+callbacks.relu._target_=reset_study.Rectify"
HOT = "model.lr=0.02"
VARIANTS: dict[str, list[str]] = {
    "silu": [QUIET],
    "relu": [RELU, QUIET],
    "relu_hot": [RELU, HOT, QUIET],
    "relu_hot_reset": [RELU, HOT],
}


class Rectify(Callback):
    """Puts ReLU in the place of SiLU before training."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Exchange the activations; they have no parameters."""
        for module in pl_module.modules():
            if isinstance(getattr(module, "act", None), nn.SiLU):
                module.act = nn.ReLU(inplace=True)


class LastEpoch(Callback):
    """Counts the channels that the last epoch uses, apart from the stage that resets."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.usage: ChannelUsage | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin at the last epoch."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            example = pl_module.example_input_array
            outputs = layer_outputs(pl_module, example.to(pl_module.device))
            activated = {name: out for name, out in outputs.items() if out.activated}
            self.usage = ChannelUsage(pl_module, activated)
            self.usage.start()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write how many channels were dead."""
        assert self.usage is not None
        self.usage.stop()
        stats = self.usage.stats()
        content = {
            "channels": sum(s["total_channels"] for s in stats.values()),
            "dead": sum(s["total_channels"] - s["used_channels"] for s in stats.values()),
        }
        self.path.write_text(json.dumps(content))


def train(variant: str, seed: int, overrides: list[str]) -> dict[str, Any]:
    """Train one variant with one seed; return the row of the table."""
    folder = Path(tempfile.mkdtemp(prefix="reset_study_"))
    words = [
        "+pruning=channel_reset",
        "recovery_epochs=0",
        "data.train_images=250",
        f"seed={seed}",
        f"output_dir={folder}",
        "+callbacks.last_epoch._target_=reset_study.LastEpoch",
        f"+callbacks.last_epoch.path={folder / 'dead.json'}",
        *VARIANTS[variant],
        *overrides,  # the last one counts
    ]
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = hydra.compose("train", words)
    begin = time.monotonic()
    run(cfg)
    report = read_report(folder / "pruning_report.json")
    layers = report.usage.layers.values()
    row = {
        "variant": variant,
        "seed": seed,
        "map50_95": report.dense.metrics["test/map50_95"],
        "reset": sum(sum(layer.reset) for layer in layers),
        "seconds": round(time.monotonic() - begin),
        **json.loads((folder / "dead.json").read_text()),
    }
    shutil.rmtree(folder)
    return row


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table of all runs."""
    print(
        "variant           seed   test mAP50-95   channels   dead in the last epoch   reset in all"
    )
    for row in sorted(rows, key=lambda row: (row["variant"], row["seed"])):
        print(
            f"{row['variant']:16s}{row['seed']:6d}{row['map50_95']:16.4f}{row['channels']:11d}"
            f"{row['dead']:25d}{row['reset']:15d}"
        )


def main() -> None:
    """Run, print and write the study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--output", type=Path, default=HERE / "results" / "reset_study.json")
    parser.add_argument("--quick", action="store_true", help="a few images and epochs")
    args = parser.parse_args()
    few = ["dense_epochs=5", "data.train_images=32", "data.val_images=8", "data.test_images=8"]
    small = [*few, "data.image_size=64", "pruning.channel_resetter.min_batches=1"]
    rows = json.loads(args.output.read_text()) if args.output.is_file() else []
    for seed in args.seeds:
        for variant in args.variants:
            if not any(r["variant"] == variant and r["seed"] == seed for r in rows):
                rows.append(train(variant, seed, small if args.quick else []))
                args.output.parent.mkdir(parents=True, exist_ok=True)
                args.output.write_text(json.dumps(rows, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
