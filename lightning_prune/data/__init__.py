"""LightningDataModules, and what makes a data pipeline resumable."""

from lightning_prune.data.coco_json import CocoJsonDataModule
from lightning_prune.data.digits import DigitsDetectionDataModule
from lightning_prune.data.yolo_folder import YoloFolderDataModule

__all__ = ["CocoJsonDataModule", "DigitsDetectionDataModule", "YoloFolderDataModule"]
