"""Compare criteria on photographs of blood cells (BCCD), at equal training and half the MACs.

    python benchmarks/accuracy.py --seeds 0 1 2 3 4

The last methods use no labels until they are cut: ``compress`` in one step, closed form, or with
300 label-free steps behind it, to a half and to a third of the MACs.

The protocol: YOLOv8n with COCO weights and a fresh class head, 205 training and 87 validation
photographs at 320 px, 15 dense epochs; then 8 epochs at the same rate for every method, masking
included. For each method and seed: mAP right after the cut, after the 8 epochs, and after norm
statistics were re-estimated on the training photographs; then means, standard deviations, and
paired bootstrap intervals over the validation photographs against torch-pruning's loop.

Every finished run is a file in ``--work``, so that a comparison may be made in several sittings
and by several processes; the table is drawn from what is there, and rows of other methods stay in
the JSON file. ``--data`` takes any other set of photographs in YOLO layout.
"""

import argparse
import copy
import json
import logging
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torchvision.ops import box_convert

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.channel_regularizer import ChannelRegularizer
from lightning_prune.callbacks.distiller import Distiller
from lightning_prune.callbacks.label_free_steps import LabelFreeSteps
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.sequential_activation_masker import SequentialActivationMasker
from lightning_prune.detection.data.yolo_folder import YoloFolderDataModule
from lightning_prune.detection.module import DetectionModule
from lightning_prune.detection.paired_precision import (
    Matched,
    average_precision,
    interval,
    match_all,
)
from lightning_prune.engine.compress import compress
from lightning_prune.graph.macs import count_macs
from lightning_prune.policies.criteria.bn_scale import BNScale
from lightning_prune.policies.criteria.criterion import Criterion
from lightning_prune.policies.criteria.fisher import Fisher
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.criteria.random_choice import RandomChoice
from lightning_prune.policies.criteria.reconstruction import Reconstruction
from lightning_prune.policies.selection.clusterer import ChannelClusterer
from lightning_prune.policies.selection.fast_widths import FastWidths
from lightning_prune.surgery.recalibrate import recalibrate_norms

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("LIGHTNING_PRUNE_SHARED", HERE.parents[1] / "shared"))
PEER = "torch-pruning L2 global"
ALL = 10_000  # more images than there are


class Protocol:
    """Data, network and training of the comparison.

    Args:
        arguments: The command line.
        seed: Of data order, class head and random choices.
    """

    def __init__(self, arguments: argparse.Namespace, seed: int) -> None:
        self.arguments = arguments
        self.seed = seed
        self.dense_file = arguments.work / f"dense_{seed}.ckpt"
        self._classes = 0

    @property
    def classes(self) -> int:
        """Classes of the photographs."""
        if not self._classes:
            data = self.data()
            data.setup("fit")
            self._classes = data.num_classes
        return self._classes

    def data(self, offset: int = 0) -> YoloFolderDataModule:
        """Return the photographs, flipped at random and letterboxed, nothing else."""
        return YoloFolderDataModule(
            self.arguments.data, image_size=self.arguments.image_size, batch_size=16,
            num_workers=0, seed=self.seed + offset, mosaic=0.0, close_mosaic=0, translate=0.0,
            scale=0.0, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0, fliplr=0.5, flipud=0.5, cache_images=True,
        )  # fmt: skip

    def module(self, weights: Path | None) -> DetectionModule:
        """Return a detector with the training settings of the protocol."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the class head is meant to start fresh
            return DetectionModule(
                num_classes=self.classes, weights=None if weights is None else str(weights),
                image_size=self.arguments.image_size, optimizer="adamw", lr=1.43e-3,
                weight_decay=5e-4, warmup_epochs=2.0, final_lr=0.01, schedule="cosine",
            )  # fmt: skip

    def trainer(self, epochs: int, callbacks: Sequence[Callback] = ()) -> L.Trainer:
        """Return a Trainer without validation, files and bars."""
        return L.Trainer(
            max_epochs=epochs, accelerator=self.arguments.accelerator, devices=1, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            gradient_clip_val=10.0, callbacks=list(callbacks), limit_val_batches=0,
        )  # fmt: skip

    def dense(self) -> DetectionModule:
        """Return the dense model of this seed, trained once."""
        if not self.dense_file.is_file():
            L.seed_everything(self.seed, verbose=False)
            model, trainer = self.module(self.arguments.weights), self.trainer(self.epochs[0])
            trainer.fit(model, self.data())
            trainer.save_checkpoint(self.dense_file, weights_only=True)
        return self.module(self.dense_file)

    @property
    def epochs(self) -> tuple[int, int]:
        """Dense epochs, and epochs from the start of pruning on."""
        return self.arguments.dense_epochs, self.arguments.recovery_epochs

    def recover(self, model: DetectionModule, callbacks: Sequence[Callback] = ()) -> None:
        """Train for the recovery epochs, other images first than the dense run had."""
        L.seed_everything(self.seed + 100, verbose=False)
        self.trainer(self.epochs[1], callbacks).fit(model, self.data(offset=100))

    def detections(self, model: DetectionModule) -> list[torch.Tensor]:
        """Return the detections of every validation photograph as validation takes them."""
        data = self.data()
        data.setup("fit")
        model = copy.deepcopy(model).cpu().eval()
        found: list[torch.Tensor] = []
        with torch.no_grad():
            for images, _ in data.val_dataloader():
                found += model._suppress(images, model.hparams["confidence"], multi_label=True)
        return found

    def objects(self) -> list[torch.Tensor]:
        """Return per validation photograph (m, 5): corners in pixels and class."""
        data, real = self.data(), []
        data.setup("fit")
        for images, targets in data.val_dataloader():
            boxes = box_convert(targets["box"] * images.shape[-1], "cxcywh", "xyxy")
            rows = torch.cat([boxes, targets["label"][:, None].float()], dim=1)
            real += [rows[targets["image"] == index] for index in range(len(images))]
        return real

    def recalibrated(self, model: DetectionModule) -> DetectionModule:
        """Return a copy whose norm statistics are those of all training photographs."""
        data = self.data()
        data.setup("fit")
        copied = copy.deepcopy(model).cpu().train()
        recalibrate_norms(copied, data.collection_dataloader(), lambda net, batch: net(batch[0]))
        return copied


class AfterCut(Callback):
    """Keep a copy of the model as the cut left it."""

    def __init__(self) -> None:
        self.model: DetectionModule | None = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Copy the model at the first batch after the cut."""
        if self.model is None and getattr(self, "cut", False):
            self.model = copy.deepcopy(pl_module)

    def on_channels_pruned(self, *_: Any) -> None:
        """Take note of the cut."""
        self.cut = True


def with_callbacks(make: Callable[[Protocol], list[Callback]]) -> Callable[..., Any]:
    """Return a method: the dense model, trained on with these stages."""

    def method(protocol: Protocol) -> tuple[DetectionModule | None, DetectionModule]:
        model, after = protocol.dense(), AfterCut()
        protocol.recover(model, [*make(protocol), after])
        return after.model, model

    return method


def dense_control(protocol: Protocol) -> tuple[None, DetectionModule]:
    """Train the dense model for as many epochs more."""
    model = protocol.dense()
    protocol.recover(model)
    return None, model


def torch_pruning_loop(ranked: str, epochs: int, norms: bool = False) -> Callable[..., Any]:
    """Return a method: cut as torch-pruning's YOLOv8 example does, by the L2 norm, and train on.

    The head is left alone, as there. Its smallest steps are taken until half of the MACs are left:
    all of them before the first epoch, or an equal part of the MACs at the start of some epochs.

    Args:
        ranked: ``global`` or ``local``.
        epochs: At the start of how many epochs channels are cut.
        norms: Whether norm statistics are estimated again after each cut.
    """

    def method(protocol: Protocol) -> tuple[DetectionModule | None, DetectionModule]:
        model = protocol.dense()
        cutting = TorchPruning(protocol, model, ranked, epochs, norms)
        protocol.recover(model, [cutting])
        return cutting.after, model

    return method


class TorchPruning(Callback):
    """Cuts a model with torch-pruning at the start of its first epochs."""

    STEPS = 200
    """Of equal parts of the channels, as fine as the widths in multiples of 8 allow."""

    def __init__(
        self, protocol: Protocol, model: DetectionModule, ranked: str, epochs: int, norms: bool
    ) -> None:
        import torch_pruning as tp

        side = protocol.arguments.image_size
        self.protocol, self.epochs, self.norms = protocol, epochs, norms
        self.example = torch.zeros(1, 3, side, side)
        self.after: DetectionModule | None = None
        self.dense_macs = count_macs(model.network, self.example)
        model.eval()
        self.pruner = tp.pruner.MagnitudePruner(
            model.network, self.example, importance=tp.importance.GroupMagnitudeImportance(p=2),
            global_pruning=ranked == "global", pruning_ratio=0.95, round_to=8,
            iterative_steps=self.STEPS, ignored_layers=[model.network.head],
        )  # fmt: skip
        model.train()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Cut to this epoch's share of the MACs; the optimizer starts again on what is left."""
        assert isinstance(pl_module, DetectionModule)
        if trainer.current_epoch >= self.epochs:
            return
        wanted = 1 - 0.5 * (trainer.current_epoch + 1) / self.epochs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(self.STEPS):
                if count_macs(pl_module.network, self.example) <= wanted * self.dense_macs:
                    break
                self.pruner.step()
        if self.norms:
            data = self.protocol.data()
            data.setup("fit")
            batches = data.collection_dataloader()
            recalibrate_norms(pl_module, batches, lambda net, batch: net(batch[0]))
        made: Any = pl_module.configure_optimizers()
        (old,), fresh = trainer.optimizers, made["optimizer"]
        for group, other in zip(old.param_groups, fresh.param_groups, strict=True):
            group["params"] = other["params"]
        old.state.clear()
        if trainer.current_epoch == self.epochs - 1:
            self.after = copy.deepcopy(pl_module)


def ranked_stages(
    protocol: Protocol, criterion: Criterion, start: int = 0, **options: Any
) -> list[Callback]:
    """Return the stages of the recipe `channel`: masks in a few steps, then the cut."""
    compared = {"ranking": "global", "fast_widths": None, "compensate_images": 0} | options
    masker = ChannelMasker(
        start_epoch=start, end_epoch=start + 4, mac_target=0.5, round_to=8,
        criterion=criterion,
        recalibrate_images=ALL, gradient_images=ALL, **compared,
    )  # fmt: skip
    return [masker, PhysicalPruner(recalibrate_images=ALL)]


def by_ranking(criterion: Callable[[Protocol], Criterion], **options: Any) -> Callable[..., Any]:
    """Return a method: mask in a few steps by a ranking over all layers, cut, train on."""
    return with_callbacks(lambda protocol: ranked_stages(protocol, criterion(protocol), **options))


def regularized(protocol: Protocol) -> list[Callback]:
    """Return the stages of `channel` behind three epochs of group-norm penalty."""
    return [ChannelRegularizer(reg=5e-3), *ranked_stages(protocol, GroupNorm(), start=3)]


def by_separability(protocol: Protocol) -> list[Callback]:
    """Return the stages of the recipe `sequential_activation`, all layers in two steps."""
    masker = SequentialActivationMasker(
        start_epoch=0, mac_target=0.5, keep_range=(0.25, 0.75), round_to=8, layers_per_step=30,
        fast_widths=None,
        images=128, recalibrate_images=64, seed=protocol.seed,
        clusterer=ChannelClusterer(seed=protocol.seed),
    )  # fmt: skip
    return [masker, PhysicalPruner(recalibrate_images=ALL)]


def in_one_step(
    mac_target: float, criterion: Callable[[Protocol], Criterion] | None = None, **options: Any
) -> Callable[..., Any]:
    """Return a method: mask in one step, refit, cut, train on; by measured losses by default."""

    def stages(protocol: Protocol) -> list[Callback]:
        own = {"ranking": "measured", "fast_widths": None, "compensate_images": ALL} | options
        masker = ChannelMasker(
            start_epoch=0, end_epoch=1, mac_target=mac_target, keep_range=(0.125, 1.0),
            round_to=8, hold_epochs=0, gradient_images=ALL, recalibrate_images=ALL,
            criterion=Reconstruction() if criterion is None else criterion(protocol), **own,
        )  # fmt: skip
        return [masker, PhysicalPruner(recalibrate_images=0)]

    return with_callbacks(stages)


def recipe_of_compress(mac_target: float, distilled: bool) -> Callable[..., Any]:
    """Return a method: the stages of `+pruning=compress`, and behind them a `Distiller` or none."""

    def stages(protocol: Protocol) -> list[Callback]:
        name = f"teacher_{mac_target:.2f}_{distilled}_{protocol.seed}.ckpt"
        masker = ChannelMasker(
            start_epoch=0, end_epoch=1, mac_target=mac_target, keep_range=(0.125, 1.0),
            round_to=8, hold_epochs=0, gradient_images=ALL, recalibrate_images=0,
            criterion=Reconstruction(), ranking="measured", fast_widths=None,
            compensate_images=ALL, dense_checkpoint=str(protocol.arguments.work / name),
        )  # fmt: skip
        steps = LabelFreeSteps(300, images=ALL, mirror=True, seed=protocol.seed)
        rest = [Distiller()] if distilled else []
        return [masker, PhysicalPruner(recalibrate_images=0), steps, *rest]

    return with_callbacks(stages)


def without_labels(mac_target: float, steps: int) -> Callable[..., Any]:
    """Return a method: compress by the training photographs, then train on with labels."""

    def method(protocol: Protocol) -> tuple[DetectionModule, DetectionModule]:
        model, data = protocol.dense(), protocol.data()
        data.setup("fit")
        compress(
            model, data.collection_dataloader(), mac_target, steps=steps, mirror=True,
            seed=protocol.seed,
        )  # fmt: skip
        after = copy.deepcopy(model)
        model.train()
        protocol.recover(model)
        return after, model

    return method


METHODS: dict[str, Callable[[Protocol], tuple[DetectionModule | None, DetectionModule]]] = {
    "dense, 8 more epochs": dense_control,
    PEER: torch_pruning_loop("global", epochs=1),
    "torch-pruning L2 global, norms": torch_pruning_loop("global", epochs=1, norms=True),
    "torch-pruning L2 global, 4 epochs, norms": torch_pruning_loop("global", epochs=4, norms=True),
    "torch-pruning L2 local, norms": torch_pruning_loop("local", epochs=1, norms=True),
    "torch-pruning L2 local, 4 epochs, norms": torch_pruning_loop("local", epochs=4, norms=True),
    "separability": with_callbacks(by_separability),
    "group norm, local, compensated": by_ranking(
        lambda _: GroupNorm(), ranking="local", compensate_images=128
    ),
    "group norm, local, compensated, fast widths": by_ranking(
        lambda _: GroupNorm(), ranking="local", compensate_images=128, fast_widths=FastWidths()
    ),
    "group norm, local, compensated, fast widths, moved": by_ranking(
        lambda _: GroupNorm(),
        ranking="local",
        compensate_images=128,
        fast_widths=FastWidths(memory_cost=100, max_shift=0.5),
    ),
    "Fisher, local, compensated": by_ranking(
        lambda _: Fisher(), ranking="local", compensate_images=128
    ),
    "group norm, global, compensated": by_ranking(lambda _: GroupNorm(), compensate_images=128),
    "group norm, global": by_ranking(lambda _: GroupNorm()),
    "group norm, global, regularized": with_callbacks(regularized),
    "BN scale, global": by_ranking(lambda _: BNScale()),
    "random, global": by_ranking(lambda protocol: RandomChoice(protocol.seed)),
    "measured losses, half": in_one_step(0.5),
    "measured losses, third": in_one_step(1 / 3),
    "equal widths, half": in_one_step(0.5, ranking="local"),
    "measured losses by group norm, half": in_one_step(0.5, lambda _: GroupNorm()),
    "measured losses, not refitted, half": in_one_step(0.5, compensate_images=0),
    "group norm, equal widths, half": in_one_step(0.5, lambda _: GroupNorm(), ranking="local"),
    "random, equal widths, half": in_one_step(
        0.5, lambda protocol: RandomChoice(protocol.seed), ranking="local"
    ),
    "one step, half": without_labels(0.5, 0),
    "one step, third": without_labels(1 / 3, 0),
    "label-free, half": without_labels(0.5, 300),
    "label-free, third": without_labels(1 / 3, 300),
    "recipe compress, half": recipe_of_compress(0.5, distilled=False),
    "recipe compress, distilled, half": recipe_of_compress(0.5, distilled=True),
    "recipe compress, distilled, third": recipe_of_compress(1 / 3, distilled=True),
}


def run(name: str, protocol: Protocol) -> None:
    """Carry out one method for one seed and write its file."""
    file = protocol.arguments.work / f"{name.replace(' ', '_')}_{protocol.seed}.pt"
    if file.is_file():
        return
    start = time.perf_counter()
    after, model = METHODS[name](protocol)
    side = protocol.arguments.image_size
    dense = protocol.module(None)
    example = torch.zeros(1, 3, side, side)
    result = {
        "seconds": time.perf_counter() - start,
        "macs": count_macs(model.network.cpu(), example) / count_macs(dense.network, example),
        "found": {
            "cut": None if after is None else protocol.detections(after),
            "trained": protocol.detections(model),
            "recalibrated": protocol.detections(protocol.recalibrated(model)),
        },
    }
    torch.save(result, file)
    print(f"{name}, seed {protocol.seed}: {result['seconds']:.0f} s", flush=True)


def read(name: str, protocol: Protocol, real: list[Any]) -> dict[str, Any] | None:
    """Return the matched detections and mAP of a finished run, or None."""
    file = protocol.arguments.work / f"{name.replace(' ', '_')}_{protocol.seed}.pt"
    if not file.is_file():
        return None
    result: dict[str, Any] = torch.load(file, weights_only=True)
    even = torch.ones(len(real)).double().numpy()
    result["matched"] = {}
    for moment, found in result.pop("found").items():
        if found is not None:
            rows = [each.double().numpy() for each in found]
            result["matched"][moment] = match_all(rows, real, protocol.classes)
    result["map"] = {
        moment: average_precision(matched, even) for moment, matched in result["matched"].items()
    }
    return result


def summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means and standard deviations over the seeds of a method."""
    row: dict[str, Any] = {"method": name, "seeds": len(runs)}
    row["macs"] = statistics.mean(run["macs"] for run in runs)
    for moment in ("cut", "trained", "recalibrated"):
        values = [run["map"][moment] for run in runs if moment in run["map"]]
        for place, metric in enumerate(("map50", "map50_95")):
            column = [value[place] for value in values]
            if column:
                spread = statistics.stdev(column) if len(column) > 1 else 0.0
                row[f"{moment}_{metric}"] = [statistics.mean(column), spread]
    return row


def compare(
    ours: dict[int, dict[str, Any]], theirs: dict[int, dict[str, Any]], rounds: int
) -> dict[str, Any] | None:
    """Return the bootstrapped difference after training, over the seeds that both have."""
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        return None
    result: dict[str, Any] = {"seeds": seeds}
    for moment in ("trained", "recalibrated"):
        pairs: list[list[list[Matched]]] = [
            [side[seed]["matched"][moment] for seed in seeds] for side in (ours, theirs)
        ]
        result[moment] = interval(pairs[0], pairs[1], rounds)
    return result


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print one line a method: mAP50 / mAP50-95, mean and standard deviation."""
    print(
        f"{'method':<44}{'seeds':>6}{'MACs':>7}  {'after the cut':^15}  {'trained':^27}  ", end=""
    )
    print(f"{'norms re-estimated':^27}")
    for row in rows:
        line = f"{row['method']:<44}{row['seeds']:>6}{row['macs']:>7.3f}"
        cut = [row.get(f"cut_{metric}") for metric in ("map50", "map50_95")]
        line += "  " + (f"{cut[0][0]:.3f} / {cut[1][0]:.3f}" if cut[0] else "-").center(15)
        for moment in ("trained", "recalibrated"):
            parts = [row[f"{moment}_{metric}"] for metric in ("map50", "map50_95")]
            line += "  " + " / ".join(f"{mean:.3f} +-{spread:.3f}" for mean, spread in parts)
        print(line)
    for row in rows:
        if row.get("against_peer"):
            difference, low, high = row["against_peer"]["trained"]
            print(
                f"{row['method']} - {PEER}: {difference:+.3f} mAP50-95, 95 % of the resamples in "
                f"[{low:+.3f}, {high:+.3f}], seeds {row['against_peer']['seeds']}"
            )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "bccd" / "data.yaml")
    weights = SHARED / "data" / "yolov8n_coco" / "yolov8n_coco.safetensors"
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--work", type=Path, default=HERE / "work" / "accuracy")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "accuracy.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--dense-epochs", type=int, default=15)
    parser.add_argument("--recovery-epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1000, help="resamples of the bootstrap")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--train-only", action="store_true", help="finish runs, draw no table")
    return parser.parse_args()


def main() -> None:
    """Finish the runs that are missing, then print and write the comparison."""
    args = arguments()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    args.work.mkdir(parents=True, exist_ok=True)
    protocols = {seed: Protocol(args, seed) for seed in args.seeds}
    for seed in args.seeds:
        for name in args.methods:
            run(name, protocols[seed])
    if args.train_only:
        return
    real = [rows.double().numpy() for rows in protocols[args.seeds[0]].objects()]
    finished: dict[str, dict[int, dict[str, Any]]] = {}
    for name in args.methods:
        runs = {seed: read(name, protocols[seed], real) for seed in args.seeds}
        finished[name] = {seed: found for seed, found in runs.items() if found is not None}
    rows = []
    for name, runs in finished.items():
        rows.append(summary(name, list(runs.values())))
        if name != PEER and finished.get(PEER):
            rows[-1]["against_peer"] = compare(runs, finished[PEER], args.rounds)
    print_table(rows)
    result = {
        "rows": rows,
        "dense_epochs": args.dense_epochs,
        "recovery_epochs": args.recovery_epochs,
        "bootstrap_rounds": args.rounds,
        "threads": 1,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "lightning", "torch-pruning")},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    if args.output.is_file():
        earlier = json.loads(args.output.read_text())["rows"]
        result["rows"] = [row for row in earlier if row["method"] not in finished] + rows
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
