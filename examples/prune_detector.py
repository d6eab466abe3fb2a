"""Train a YOLOv8 on handwritten digits, prune it to 40 % of its MACs, and fine-tune it.

python examples/prune_detector.py

`python train.py +pruning=sequential_activation` does the same with averaged weights, checkpoints
and a test of the dense model beside the pruned one.
"""

from typing import Any

from lightning.pytorch import Trainer, seed_everything

from lightning_prune import (
    DetectionModule,
    DigitsDetectionDataModule,
    OptimizerResetter,
    PhysicalPruner,
    PruningReport,
    SequentialActivationMasker,
)


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
    stages = [
        SequentialActivationMasker(dense_epochs, mac_target=0.4, keep_range=(0.25, 0.75)),
        PhysicalPruner(),
        OptimizerResetter(),
        PruningReport(folder),
    ]
    epochs = dense_epochs + recovery_epochs
    trainer = Trainer(
        max_epochs=epochs, callbacks=stages, gradient_clip_val=10.0, default_root_dir=folder
    )
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data)
    trainer.save_checkpoint(f"{folder}/pruned.ckpt", weights_only=True)
    DetectionModule.load_from_checkpoint(f"{folder}/pruned.ckpt", weights_only=True)


if __name__ == "__main__":
    main()
