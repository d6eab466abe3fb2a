"""Stages that several recipes share, with what is the same in all of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pruned_checkpoint import PrunedCheckpoint
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.callbacks.slice_masker import SliceMasker
from lightning_prune.callbacks.slice_regularizer import SliceRegularizer
from lightning_prune.policies.criteria.criterion import Criterion
from lightning_prune.policies.layers.layer_rule import LayerRule
from lightning_prune.validation import known_arguments

Layers = list[str] | LayerRule | None
Folder = str | Path | None


def channel_masker(
    start: int,
    end: int,
    mac_target: float | None,
    criterion: Criterion | None,
    layers: Layers,
    folder: Folder,
    further: Mapping[str, Any],
) -> ChannelMasker:
    """Return the masker of recipes that mask by a ratio."""
    chosen = {
        "start_epoch": start,
        "end_epoch": end,
        "mac_target": mac_target,
        "criterion": criterion,
        "layers": layers,
        "dense_checkpoint": dense_checkpoint(folder),
    }
    return ChannelMasker(**chosen | known_arguments(ChannelMasker, further))


def slice_stages(
    reg: float, start_epoch: int, masker: Mapping[str, Any]
) -> tuple[SliceRegularizer, SliceMasker]:
    """Return the stages that push slices towards zero and hold the smallest there."""
    masks = SliceMasker(**known_arguments(SliceMasker, masker))
    spared, end = masks.disable_first_index, masker["end_epoch"]
    regularizer = SliceRegularizer(
        reg, masks.block_size, masks.layers, start_epoch, end, disable_first_index=spared
    )
    return regularizer, masks


def cut_stages(
    folder: Folder, monitor: str | None, recalibrate_images: int = 256
) -> Sequence[Callback]:
    """Return the stages from the cut to the report."""
    checkpoints = None if folder is None else str(Path(folder) / "checkpoints")
    return (
        PhysicalPruner(recalibrate_images=recalibrate_images),
        OptimizerResetter(),
        PrunedCheckpoint(checkpoints, monitor=monitor),
        PruningReport(folder_text(folder)),
    )


def dense_checkpoint(folder: Folder) -> str | None:
    """Return where the dense model is kept; None: nowhere."""
    return None if folder is None else str(Path(folder) / "checkpoints" / "dense.ckpt")


def folder_text(folder: Folder) -> str | None:
    """Return the path of a folder as stages take it."""
    return None if folder is None else str(folder)
