"""Structured pruning for PyTorch Lightning.

The public names are resolved on first use, so `import lightning_prune.functional` needs neither
Lightning nor Hydra.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_prune.callbacks.channel_masker import ChannelMasker as ChannelMasker
    from lightning_prune.callbacks.channel_regularizer import (
        ChannelRegularizer as ChannelRegularizer,
    )
    from lightning_prune.callbacks.channel_resetter import ChannelResetter as ChannelResetter
    from lightning_prune.callbacks.exact_resume import ExactResume as ExactResume
    from lightning_prune.callbacks.exponential_moving_average import (
        ExponentialMovingAverage as ExponentialMovingAverage,
    )
    from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter as OptimizerResetter
    from lightning_prune.callbacks.physical_pruner import PhysicalPruner as PhysicalPruner
    from lightning_prune.callbacks.pruned_checkpoint import PrunedCheckpoint as PrunedCheckpoint
    from lightning_prune.callbacks.pruning_report import PruningReport as PruningReport
    from lightning_prune.callbacks.sequential_activation_masker import (
        SequentialActivationMasker as SequentialActivationMasker,
    )
    from lightning_prune.callbacks.slice_masker import SliceMasker as SliceMasker
    from lightning_prune.callbacks.slice_regularizer import SliceRegularizer as SliceRegularizer
    from lightning_prune.callbacks.stop_on_signal import StopOnSignal as StopOnSignal
    from lightning_prune.data.coco_json import CocoJsonDataModule as CocoJsonDataModule
    from lightning_prune.data.digits import DigitsDetectionDataModule as DigitsDetectionDataModule
    from lightning_prune.data.neural_sessions import (
        NeuralSessionsDataModule as NeuralSessionsDataModule,
    )
    from lightning_prune.data.simulated_cells import (
        SimulatedCellsDataModule as SimulatedCellsDataModule,
    )
    from lightning_prune.data.yolo_folder import YoloFolderDataModule as YoloFolderDataModule
    from lightning_prune.functional.objects import ObjectSamples as ObjectSamples
    from lightning_prune.functional.selection import ChannelSelection as ChannelSelection
    from lightning_prune.functional.selection import select_channels as select_channels
    from lightning_prune.graph.macs import count_macs as count_macs
    from lightning_prune.graph.outputs import layer_outputs as layer_outputs
    from lightning_prune.loading import load_pruned as load_pruned
    from lightning_prune.loop.pruning import Pruning as Pruning
    from lightning_prune.modules.detection import DetectionModule as DetectionModule
    from lightning_prune.modules.neural_response import NeuralResponseModule as NeuralResponseModule
    from lightning_prune.observe.usage import ChannelUsage as ChannelUsage
    from lightning_prune.plan import PruningPlan as PruningPlan
    from lightning_prune.plugins.atomic_checkpoint_io import (
        AtomicCheckpointIO as AtomicCheckpointIO,
    )
    from lightning_prune.pruners.bn_scale_penalty import BNScalePenalty as BNScalePenalty
    from lightning_prune.pruners.fast_widths import FastWidths as FastWidths
    from lightning_prune.pruners.group_norm_penalty import GroupNormPenalty as GroupNormPenalty
    from lightning_prune.surgery.architecture import track_architecture as track_architecture
    from lightning_prune.surgery.build_groups import build_groups as build_groups
    from lightning_prune.surgery.cut import cut_channels as cut_channels
    from lightning_prune.surgery.load_pruned_state_dict import (
        load_pruned_state_dict as load_pruned_state_dict,
    )
    from lightning_prune.surgery.reinitialize import reset_channels as reset_channels
    from lightning_prune.testing import check_prunable as check_prunable

__version__ = "0.1.0"

_HOMES = {
    "AtomicCheckpointIO": "plugins.atomic_checkpoint_io",
    "BNScalePenalty": "pruners.bn_scale_penalty",
    "ChannelMasker": "callbacks.channel_masker",
    "ChannelRegularizer": "callbacks.channel_regularizer",
    "ChannelResetter": "callbacks.channel_resetter",
    "ChannelSelection": "functional.selection",
    "ChannelUsage": "observe.usage",
    "CocoJsonDataModule": "data.coco_json",
    "DetectionModule": "modules.detection",
    "DigitsDetectionDataModule": "data.digits",
    "ExactResume": "callbacks.exact_resume",
    "ExponentialMovingAverage": "callbacks.exponential_moving_average",
    "FastWidths": "pruners.fast_widths",
    "GroupNormPenalty": "pruners.group_norm_penalty",
    "NeuralResponseModule": "modules.neural_response",
    "NeuralSessionsDataModule": "data.neural_sessions",
    "ObjectSamples": "functional.objects",
    "OptimizerResetter": "callbacks.optimizer_resetter",
    "PhysicalPruner": "callbacks.physical_pruner",
    "PrunedCheckpoint": "callbacks.pruned_checkpoint",
    "Pruning": "loop.pruning",
    "PruningPlan": "plan",
    "PruningReport": "callbacks.pruning_report",
    "SequentialActivationMasker": "callbacks.sequential_activation_masker",
    "SimulatedCellsDataModule": "data.simulated_cells",
    "SliceMasker": "callbacks.slice_masker",
    "SliceRegularizer": "callbacks.slice_regularizer",
    "StopOnSignal": "callbacks.stop_on_signal",
    "YoloFolderDataModule": "data.yolo_folder",
    "build_groups": "surgery.build_groups",
    "check_prunable": "testing",
    "count_macs": "graph.macs",
    "cut_channels": "surgery.cut",
    "layer_outputs": "graph.outputs",
    "load_pruned": "loading",
    "load_pruned_state_dict": "surgery.load_pruned_state_dict",
    "reset_channels": "surgery.reinitialize",
    "select_channels": "functional.selection",
    "track_architecture": "surgery.architecture",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lightning_prune' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"lightning_prune.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
