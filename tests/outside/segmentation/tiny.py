"""A segmentation network that is small enough for tests."""

from typing import Any

import torch

from lightning_prune.surgery.scramble import scramble
from lightning_prune.vision.segmentation_module import SegmentationModule

ENCODER = "tu-test_resnet"
OPTIONS: dict[str, Any] = {"decoder_channels": [16, 16, 8, 8, 8]}
WORDS = [
    "model=smp", f"model.encoder={ENCODER}", "model.options={decoder_channels:[16,16,8,8,8]}",
    "data=mask_folder", "data.image_size=32", "data.batch_size=4", "data.num_workers=0",
    "trainer.accelerator=cpu", "trainer.num_sanity_val_steps=0",
]  # fmt: skip


def tiny(scrambled: bool = True, **options: Any) -> SegmentationModule:
    """Return a U-Net for three classes, its weights not those of a fresh start."""
    torch.manual_seed(0)
    settings = {"encoder": ENCODER, "num_classes": 3, "image_size": 32, "options": OPTIONS}
    module = SegmentationModule(**settings | options)
    if scrambled:
        scramble(module)
    return module.eval()
