"""Train a YOLOv8 on handwritten digits, prune it to 40 % of its MACs, and fine-tune it.

python examples/prune_detector.py

`python train.py +pruning=sequential_activation` does the same with averaged weights and a test
of the dense model beside the pruned one.
"""

from typing import Any

from lightning.pytorch import seed_everything

from lightning_prune import DetectionModule, DigitsDetectionDataModule, prune


def main(
    folder: str = "outputs/detector",
    dense_epochs: int = 12,
    recovery_epochs: int = 12,
    **data_options: Any,
) -> None:
    """Train dense, mask, cut, fine-tune, test, and load what was saved."""
    seed_everything(0)
    data = DigitsDetectionDataModule(**data_options)
    recipe = {"optimizer": "adamw", "lr": 0.002, "schedule": "cosine"}
    model = DetectionModule(
        data.num_classes, image_size=data.image_size, schedule_epochs=dense_epochs, **recipe
    )
    run = prune(
        model,
        data,
        recipe="sequential_activation",
        mac_target=0.4,
        dense_epochs=dense_epochs,
        recovery_epochs=recovery_epochs,
        folder=folder,
        trainer={"gradient_clip_val": 10.0},
    )
    run.trainer.test(model, datamodule=data)
    DetectionModule.load_from_checkpoint(run.checkpoint, weights_only=True)


if __name__ == "__main__":
    main()
