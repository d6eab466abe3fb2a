"""Prune a classifier of your own: nothing in it knows of pruning.

python examples/prune_classifier.py: a small CNN on scikit-learn's digits, 15 seconds on a CPU.
"""
# ruff: noqa: D101, D102 - the methods are Lightning's own

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import lightning_prune as lp


class Digits(pl.LightningDataModule):
    """Batches are (pictures, labels): what the default `object_samples` of classifiers reads."""

    def __init__(self) -> None:
        super().__init__()
        pictures, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
        digits = TensorDataset(pictures.float().reshape(-1, 1, 8, 8) / 16, labels)
        train, val = random_split(digits, [0.8, 0.2], torch.Generator().manual_seed(0))
        self.train_dataloader = lambda: DataLoader(train, 64, shuffle=True)
        self.val_dataloader = lambda: DataLoader(val, 64)
        # What activations are read from: the training pictures, never augmented.
        self.collection_dataloader = lambda: DataLoader(train, 64)


class DigitClassifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()
        second = nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()
        third = nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()
        self.features, self.head = nn.Sequential(*first, *second, *third), nn.Linear(64, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.features(pictures).mean((2, 3)))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(
    folder: str = "outputs/classifier", dense_epochs: int = 8, recovery_epochs: int = 8
) -> float:
    """Train dense, mask, cut, fine-tune; return the accuracy of what was saved and loaded."""
    pl.seed_everything(0)
    epochs = {"dense_epochs": dense_epochs, "recovery_epochs": recovery_epochs}
    run = lp.prune(
        DigitClassifier(),
        Digits(),
        "sequential_activation",
        mac_target=0.3,
        folder=folder,
        **epochs,
    )
    loaded = lp.load_pruned(DigitClassifier, run.checkpoint)
    return run.trainer.validate(loaded, datamodule=Digits())[0]["val/accuracy"]


if __name__ == "__main__":
    main()
