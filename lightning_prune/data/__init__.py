"""LightningDataModules, and what makes a data pipeline resumable."""

from lightning_prune.detection.data.coco_json import CocoJsonDataModule
from lightning_prune.detection.data.digits import DigitsDetectionDataModule
from lightning_prune.detection.data.yolo_folder import YoloFolderDataModule

__all__ = ["CocoJsonDataModule", "DigitsDetectionDataModule", "YoloFolderDataModule"]
