"""Structured pruning for PyTorch Lightning.

The public names are resolved on first use, so `import lightning_prune.functional` needs neither
Lightning nor Hydra.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lightning_prune.extras import missing_extra
from lightning_prune.moved import install

if TYPE_CHECKING:
    from lightning_prune import criteria as criteria
    from lightning_prune import functional as functional
    from lightning_prune import recipes as recipes
    from lightning_prune.callbacks.channel_masker import ChannelMasker as ChannelMasker
    from lightning_prune.callbacks.channel_regularizer import (
        ChannelRegularizer as ChannelRegularizer,
    )
    from lightning_prune.callbacks.channel_resetter import ChannelResetter as ChannelResetter
    from lightning_prune.callbacks.channels_last import ChannelsLast as ChannelsLast
    from lightning_prune.callbacks.distiller import Distiller as Distiller
    from lightning_prune.callbacks.exponential_moving_average import (
        ExponentialMovingAverage as ExponentialMovingAverage,
    )
    from lightning_prune.callbacks.label_free_steps import LabelFreeSteps as LabelFreeSteps
    from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter as OptimizerResetter
    from lightning_prune.callbacks.physical_pruner import PhysicalPruner as PhysicalPruner
    from lightning_prune.callbacks.pruned_checkpoint import PrunedCheckpoint as PrunedCheckpoint
    from lightning_prune.callbacks.pruning_report import PruningReport as PruningReport
    from lightning_prune.callbacks.sequential_activation_masker import (
        SequentialActivationMasker as SequentialActivationMasker,
    )
    from lightning_prune.callbacks.slice_masker import SliceMasker as SliceMasker
    from lightning_prune.callbacks.slice_regularizer import SliceRegularizer as SliceRegularizer
    from lightning_prune.data.images import read_image as read_image
    from lightning_prune.detection.data.coco_json import CocoJsonDataModule as CocoJsonDataModule
    from lightning_prune.detection.data.digits import (
        DigitsDetectionDataModule as DigitsDetectionDataModule,
    )
    from lightning_prune.detection.data.yolo_folder import (
        YoloFolderDataModule as YoloFolderDataModule,
    )
    from lightning_prune.detection.module import DetectionModule as DetectionModule
    from lightning_prune.detection.network.csp_reset import CSP_Reset as CSP_Reset
    from lightning_prune.detection.network.network import YOLOv8 as YOLOv8
    from lightning_prune.detection.predict.detections import Detections as Detections
    from lightning_prune.detection.ultralytics.data import (
        UltralyticsDataModule as UltralyticsDataModule,
    )
    from lightning_prune.detection.ultralytics.module import UltralyticsModule as UltralyticsModule
    from lightning_prune.detection.ultralytics.pruned_trainer import (
        pruned_trainer as pruned_trainer,
    )
    from lightning_prune.detection.weights.read_weights import read_weights as read_weights
    from lightning_prune.engine.compress import compress as compress
    from lightning_prune.engine.compressed import Compressed as Compressed
    from lightning_prune.export.export_onnx import export_onnx as export_onnx
    from lightning_prune.files.checkpoint_error import CheckpointError as CheckpointError
    from lightning_prune.files.read_checkpoint import read_checkpoint as read_checkpoint
    from lightning_prune.functional.objects import ObjectSamples as ObjectSamples
    from lightning_prune.functional.selection.selection import ChannelSelection as ChannelSelection
    from lightning_prune.functional.selection.selection import select_channels as select_channels
    from lightning_prune.graph.macs import MacModel as MacModel
    from lightning_prune.graph.macs import count_macs as count_macs
    from lightning_prune.graph.outputs import layer_outputs as layer_outputs
    from lightning_prune.loading import load_pruned as load_pruned
    from lightning_prune.loop.pruning import Pruning as Pruning
    from lightning_prune.neural.data.sessions import (
        NeuralSessionsDataModule as NeuralSessionsDataModule,
    )
    from lightning_prune.neural.data.simulated_cells import (
        SimulatedCellsDataModule as SimulatedCellsDataModule,
    )
    from lightning_prune.neural.module import NeuralResponseModule as NeuralResponseModule
    from lightning_prune.observe.usage import ChannelUsage as ChannelUsage
    from lightning_prune.plan import PruningPlan as PruningPlan
    from lightning_prune.policies.criteria.bn_scale import BNScale as BNScale
    from lightning_prune.policies.criteria.fisher import Fisher as Fisher
    from lightning_prune.policies.criteria.fpgm import FPGM as FPGM
    from lightning_prune.policies.criteria.group_norm import GroupNorm as GroupNorm
    from lightning_prune.policies.criteria.lamp import LAMP as LAMP
    from lightning_prune.policies.criteria.mac_aware import MacAware as MacAware
    from lightning_prune.policies.criteria.magnitude import Magnitude as Magnitude
    from lightning_prune.policies.criteria.random_choice import RandomChoice as RandomChoice
    from lightning_prune.policies.criteria.separability import Separability as Separability
    from lightning_prune.policies.criteria.taylor import Taylor as Taylor
    from lightning_prune.policies.penalties.bn_scale_penalty import BNScalePenalty as BNScalePenalty
    from lightning_prune.policies.penalties.group_norm_penalty import (
        GroupNormPenalty as GroupNormPenalty,
    )
    from lightning_prune.policies.selection.fast_widths import FastWidths as FastWidths
    from lightning_prune.pruned_run import PrunedRun as PrunedRun
    from lightning_prune.pruned_run import prune as prune
    from lightning_prune.runs.checkpoint.atomic_checkpoint_io import (
        AtomicCheckpointIO as AtomicCheckpointIO,
    )
    from lightning_prune.runs.resume.exact_resume import ExactResume as ExactResume
    from lightning_prune.runs.stop_on_signal import StopOnSignal as StopOnSignal
    from lightning_prune.surgery.architecture import track_architecture as track_architecture
    from lightning_prune.surgery.build_groups import build_groups as build_groups
    from lightning_prune.surgery.cut import cut_channels as cut_channels
    from lightning_prune.surgery.load_pruned_state_dict import (
        load_pruned_state_dict as load_pruned_state_dict,
    )
    from lightning_prune.surgery.load_state_dict_pruned import (
        load_state_dict_pruned as load_state_dict_pruned,
    )
    from lightning_prune.surgery.mask import ChannelMask as ChannelMask
    from lightning_prune.surgery.reinitialize import reset_channels as reset_channels
    from lightning_prune.testing import check_prunable as check_prunable
    from lightning_prune.vision.classifier_module import ClassifierModule as ClassifierModule
    from lightning_prune.vision.image_folder import ImageFolderData as ImageFolderData
    from lightning_prune.vision.mask_folder import MaskFolderData as MaskFolderData
    from lightning_prune.vision.segmentation_module import SegmentationModule as SegmentationModule

install()

__version__ = "0.2.0"

_HOMES = {
    "AtomicCheckpointIO": "runs.checkpoint.atomic_checkpoint_io",
    "BNScale": "policies.criteria.bn_scale",
    "BNScalePenalty": "policies.penalties.bn_scale_penalty",
    "CSP_Reset": "detection.network.csp_reset",
    "ChannelMask": "surgery.mask",
    "ChannelMasker": "callbacks.channel_masker",
    "ChannelRegularizer": "callbacks.channel_regularizer",
    "ChannelResetter": "callbacks.channel_resetter",
    "ChannelSelection": "functional.selection.selection",
    "ChannelUsage": "observe.usage",
    "ChannelsLast": "callbacks.channels_last",
    "CheckpointError": "files.checkpoint_error",
    "ClassifierModule": "vision.classifier_module",
    "CocoJsonDataModule": "detection.data.coco_json",
    "Compressed": "engine.compressed",
    "DetectionModule": "detection.module",
    "Detections": "detection.predict.detections",
    "DigitsDetectionDataModule": "detection.data.digits",
    "Distiller": "callbacks.distiller",
    "ExactResume": "runs.resume.exact_resume",
    "ExponentialMovingAverage": "callbacks.exponential_moving_average",
    "FPGM": "policies.criteria.fpgm",
    "FastWidths": "policies.selection.fast_widths",
    "Fisher": "policies.criteria.fisher",
    "GroupNorm": "policies.criteria.group_norm",
    "GroupNormPenalty": "policies.penalties.group_norm_penalty",
    "ImageFolderData": "vision.image_folder",
    "LAMP": "policies.criteria.lamp",
    "MacAware": "policies.criteria.mac_aware",
    "MacModel": "graph.macs",
    "MaskFolderData": "vision.mask_folder",
    "Magnitude": "policies.criteria.magnitude",
    "NeuralResponseModule": "neural.module",
    "NeuralSessionsDataModule": "neural.data.sessions",
    "ObjectSamples": "functional.objects",
    "LabelFreeSteps": "callbacks.label_free_steps",
    "OptimizerResetter": "callbacks.optimizer_resetter",
    "PhysicalPruner": "callbacks.physical_pruner",
    "PrunedCheckpoint": "callbacks.pruned_checkpoint",
    "PrunedRun": "pruned_run",
    "Pruning": "loop.pruning",
    "PruningPlan": "plan",
    "PruningReport": "callbacks.pruning_report",
    "RandomChoice": "policies.criteria.random_choice",
    "Separability": "policies.criteria.separability",
    "SegmentationModule": "vision.segmentation_module",
    "SequentialActivationMasker": "callbacks.sequential_activation_masker",
    "SimulatedCellsDataModule": "neural.data.simulated_cells",
    "SliceMasker": "callbacks.slice_masker",
    "SliceRegularizer": "callbacks.slice_regularizer",
    "StopOnSignal": "runs.stop_on_signal",
    "Taylor": "policies.criteria.taylor",
    "UltralyticsDataModule": "detection.ultralytics.data",
    "UltralyticsModule": "detection.ultralytics.module",
    "YOLOv8": "detection.network.network",
    "YoloFolderDataModule": "detection.data.yolo_folder",
    "build_groups": "surgery.build_groups",
    "check_prunable": "testing",
    "compress": "engine.compress",
    "count_macs": "graph.macs",
    "cut_channels": "surgery.cut",
    "export_onnx": "export.export_onnx",
    "layer_outputs": "graph.outputs",
    "load_pruned": "loading",
    "load_pruned_state_dict": "surgery.load_pruned_state_dict",
    "load_state_dict_pruned": "surgery.load_state_dict_pruned",
    "prune": "pruned_run",
    "pruned_trainer": "detection.ultralytics.pruned_trainer",
    "read_checkpoint": "files.read_checkpoint",
    "read_image": "data.images",
    "read_weights": "detection.weights.read_weights",
    "reset_channels": "surgery.reinitialize",
    "select_channels": "functional.selection.selection",
    "track_architecture": "surgery.architecture",
}

_MODULES = ("criteria", "functional", "recipes")

__all__ = ["__version__", *_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"lightning_prune.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lightning_prune' has no attribute '{name}'")
    try:
        value = getattr(importlib.import_module(f"lightning_prune.{home}"), name)
    except ModuleNotFoundError as error:
        sentence = missing_extra(error, name, home.split(".")[0])
        if sentence is None:
            raise
        raise ModuleNotFoundError(sentence, name=error.name) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
