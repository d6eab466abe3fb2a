"""What `python -m lightning_prune compress` does."""

import argparse
import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from lightning_prune.cli.checkpoint_argument import checkpoint_argument
from lightning_prune.cli.compress_bundle import compressed_bundle
from lightning_prune.cli.export import load_module
from lightning_prune.cli.prediction_run import device_of
from lightning_prune.cli.terminal import shows_bars
from lightning_prune.data.images import ImageError, read_image
from lightning_prune.detection.average_precision import DetectionAveragePrecision
from lightning_prune.detection.data.yolo_folder import YoloFolderDataModule
from lightning_prune.detection.detector_module import DetectorModule
from lightning_prune.detection.predict.detect_images import placed_image
from lightning_prune.detection.predict.options import check_image_size
from lightning_prune.detection.predict.sources import find_sources
from lightning_prune.engine.compressed import Compressed
from lightning_prune.engine.compression import Compression
from lightning_prune.errors import ConfigError
from lightning_prune.export.bundle.kinds import read_kinds
from lightning_prune.files.part_file import PartFile
from lightning_prune.runs.checkpoint.write_module import write_checkpoint, write_weights
from lightning_prune.surgery.copy_module import copy_module

_FEW = 20
_UNLIKE = 0.5


class CompressRun:
    """Everything is checked when it is made; `go` then compresses.

    Args:
        args: The command line.

    Raises:
        ValueError: the model, a picture or an option is wrong; the message says what to do.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.targets = _targets(args.macs)
        _check(args)
        self.kinds = [] if args.format is None else read_kinds(args.format)
        self.folder = _empty(args.output)
        self.path = checkpoint_argument(args.model)
        self.module = _detector(self.path, args.module_class)
        self.module.to(device_of(args.device))
        size = self.module.hparams.get("image_size") or 640
        self.size = check_image_size(args.image_size or size)
        self.batches, self.left_out = self._pictures()
        self.labelled = None if args.data is None else self._labelled(args.data)

    def go(self) -> None:
        """Compress to each target, print a table, and write checkpoints, weights and a report."""
        args = self.args
        before = self._true_metric(self.module)
        compression = Compression(
            self.module, self.batches, layers=args.layers, round_to=args.round_to,
            mirror=not args.no_mirror, seed=args.seed, progress=_bar,
        )  # fmt: skip
        self._say_if_blind(compression)
        targets = self.targets
        if args.agreement is not None:
            targets = [compression.smallest(args.agreement)]
        for target in targets:
            compression.plan(target, 1.0)  # out of reach is said before the first is made
        rows = []
        for target in targets:
            made = copy_module(self.module)
            found = compression.cut(target, steps=args.steps, module=made)
            rows.append(self._written(found, target))
            self._bundle(found.module, rows[-1])
        self._report(rows, before, compression)
        if any(row.get("refused") for row in rows):
            raise RuntimeError(
                "a file missed its gate and was not written, see above; --accept-loss allows more"
            )

    def _say_if_blind(self, known: Compression) -> None:
        """Print where agreement says little: the dense network finds nothing to agree on."""
        sure = float(self.module.hparams["object_confidence"])
        seen = [self.module.predictions_of(one)[:, 4:].amax() for one in known.dense_outputs]
        if seen and max(map(float, seen)) <= sure:
            count = sum(map(len, known.pictures.held_back))
            print(
                f"the dense network is sure of nothing ({sure:g}) on the {count} pictures that are "
                "held back, so agreement says little: give pictures like those that it knows",
                file=sys.stderr,
            )

    def _written(self, found: Compressed, target: float) -> dict[str, Any]:
        module = found.module
        assert isinstance(module, DetectorModule)
        stem = f"{self.path.stem}_{target:.2f}".rstrip("0").rstrip(".")
        checkpoint, weights = self.folder / f"{stem}.ckpt", self.folder / f"{stem}.safetensors"
        write_checkpoint(module, checkpoint)
        write_weights(module, weights, module.hparams.get("names") or ())
        row = {
            "mac_target": round(target, 4),
            "macs": found.macs,
            "macs_fraction": round(found.macs_fraction, 4),
            "parameters": sum(p.numel() for p in module.parameters()),
            "agreement": found.agreement,
            "agreement_before_steps": found.agreement_before_steps,
            "steps": found.steps.steps,
            "steps_kept": found.steps.kept,
            "seconds": {part: round(value, 1) for part, value in found.seconds.items()},
            "widths": {name: list(pair) for name, pair in found.widths.items()},
            "errors": {name: round(value, 5) for name, value in found.errors.items()},
            "left": dict(found.left),
            "checkpoint": checkpoint.name,
            "weights": weights.name,
        }
        metric = self._true_metric(module)
        if metric is not None:
            row["metric"] = metric
        return row

    def _bundle(self, module: Any, row: dict[str, Any]) -> None:
        """Write the small network's files for other runtimes, where they are wanted."""
        if not self.kinds:
            return
        device = self.module.device
        bundle = compressed_bundle(
            module, self.module, self.folder / row["checkpoint"], self.kinds, self.batches,
            self.labelled, self.args.accept_loss,
        )  # fmt: skip
        self.module.to(device)
        row |= {"bundle": bundle.folder.name, "refused": bundle.refused}

    # --- pictures ---------------------------------------------------------------------------

    def _pictures(self) -> tuple[list[Tensor], list[str]]:
        sources, _ = find_sources(self.args.images)
        images = [source.path for source in sources if not source.video]
        if not images:
            raise ConfigError(f"--images {' '.join(self.args.images)}: no picture among them")
        # A folder in the order of its names may begin with one scene.
        random.Random(self.args.seed).shuffle(images)
        channels = int(self.module.hparams["in_channels"])
        read: list[Tensor] = []
        failed: list[str] = []
        for path in _bar(images, "Reading pictures"):
            if len(read) >= self.args.limit:
                break
            try:
                array = read_image(path)
            except ImageError as error:
                failed.append(str(error))
                print(f"left out: {error}", file=sys.stderr, flush=True)
                continue
            read.append(_tensor(array, self.size, channels))
        if not read:
            raise ConfigError(f"none of {len(images)} pictures can be read")
        if len(read) < _FEW:
            print(
                f"{len(read)} pictures are few: weights fitted to them may not hold elsewhere; "
                "100 to 300 are enough",
                file=sys.stderr,
            )
        batch = self.args.batch
        return [torch.stack(read[i : i + batch]) for i in range(0, len(read), batch)], failed

    def _labelled(self, path: Path) -> YoloFolderDataModule:
        data = YoloFolderDataModule(
            str(path), image_size=self.size, batch_size=self.args.batch, num_workers=0
        )
        data.setup("validate")
        if data.num_classes > int(self.module.hparams["num_classes"]):
            raise ConfigError(
                f"--data {path} has {data.num_classes} classes, the detector "
                f"{self.module.hparams['num_classes']}"
            )
        return data

    @torch.no_grad()
    def _true_metric(self, module: DetectorModule) -> dict[str, float] | None:
        """Return mAP on the labelled validation images; None where none were given."""
        if self.labelled is None:
            return None
        metric = DetectionAveragePrecision()
        module.eval()
        for images, targets in _bar(self.labelled.val_dataloader(), "Scoring"):
            images = images.to(module.device)
            found = module.scored(images)
            metric.update_batch([one.cpu() for one in found], targets, images.shape)
        return {name: round(float(value), 4) for name, value in metric.summary().items()}

    # --- what is said -----------------------------------------------------------------------

    def _report(
        self, rows: list[dict[str, Any]], before: dict[str, float] | None, known: Compression
    ) -> None:
        parameters = sum(p.numel() for p in self.module.parameters())
        report = {
            "model": str(self.path),
            "images": known.pictures.images,
            "held_back": sum(map(len, known.pictures.held_back)),
            "left_out": self.left_out,
            "image_size": self.size,
            "mirror": not self.args.no_mirror,
            "seed": self.args.seed,
            "dense": {"macs": known.macs.total, "parameters": parameters, "metric": before},
            "compressed": rows,
        }
        with PartFile(self.folder / "compress.json") as part:
            part.write(json.dumps(report, indent=2).encode())
            part.commit()
        table = Table(title=f"{self.path.name} without labels")
        for name in ("MACs", "million", "parameters, million", "agreement"):
            table.add_column(name, justify="right")
        names = list(before or {})
        for name in (*names, "seconds"):
            table.add_column(name, justify="right")
        dense = [f"{value:.4f}" for value in (before or {}).values()]
        table.add_row(
            "dense", f"{known.macs.total / 1e6:.0f}", f"{parameters / 1e6:.3f}", "1", *dense, ""
        )
        for row in rows:
            agreed = "-" if row["agreement"] is None else f"{row['agreement']:.3f}"
            table.add_row(
                f"{row['macs_fraction']:.1%}", f"{row['macs'] / 1e6:.0f}",
                f"{row['parameters'] / 1e6:.3f}", agreed,
                *(f"{row['metric'][name]:.4f}" for name in names),
                f"{sum(row['seconds'].values()):.0f}",
            )  # fmt: skip
        Console().print(table)
        print(f"written to {self.folder}")
        for row in rows:
            print(f"  {row['checkpoint']}, and its weights alone: {row['weights']}")
            if "bundle" in row:
                print(f"  {row['bundle']}/: files for other runtimes, and README.md")
        lost = [row for row in rows if row["agreement"] is not None and row["agreement"] < _UNLIKE]
        if lost:
            print(
                f"at {lost[0]['macs_fraction']:.0%} of the MACs the small network finds other "
                f"things than the dense one (agreement {lost[0]['agreement']:.2f}): leave more, "
                "give more pictures, or train with `+pruning=channel`, which needs labels"
            )


def _targets(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < value < 1 for value in found):
        raise ConfigError(
            f"--macs {text}: pass the fraction of the MACs that remains, in (0, 1), or several "
            "with commas between them: 0.7,0.5"
        )
    return sorted(set(found), reverse=True)


def _check(args: argparse.Namespace) -> None:
    for name, least in (("batch", 1), ("limit", 1), ("steps", 0), ("round_to", 1), ("seed", 0)):
        value = getattr(args, name)
        if value < least:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: pass at least {least}")
    if args.agreement is not None and not 0 < args.agreement < 1:
        raise ConfigError(f"--agreement {args.agreement}: pass a number in (0, 1)")


def _empty(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--output {folder}: is not empty; name a new folder")
    return folder


def _detector(path: Path, module_class: str | None) -> DetectorModule:
    module: Any
    try:
        module = load_module(path, module_class)
    except ConfigError as refused:
        if module_class is not None or path.suffix != ".pt":
            raise
        # Others of their networks are built by their package, where it is installed.
        from lightning_prune.detection.ultralytics.module import UltralyticsModule

        try:
            module = UltralyticsModule(weights=str(path)).eval()
        except ModuleNotFoundError as missing:
            raise ConfigError(f"{refused}\n{missing}") from missing
    if not isinstance(module, DetectorModule):
        raise ConfigError(
            f"{path} holds a {type(module).__name__}: the command compresses detectors; any other "
            "module: lightning_prune.compress(module, batches) in Python"
        )
    return module


def _tensor(array: np.ndarray, size: int, channels: int) -> Tensor:
    return placed_image(array, size, size, channels)[0].float().div_(255.0)


def _bar(items: Iterable[Any], title: str) -> Iterable[Any]:
    """Show on a terminal how far it has come, one line elsewhere."""
    if not shows_bars():
        print(f"{title} ...", flush=True)
        return items
    bar: Iterable[Any] = tqdm(items, title, leave=False)
    return bar
