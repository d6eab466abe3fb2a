"""Regularize, mask to half the MACs, cut and fine-tune a residual network of your own.

python examples/prune_by_norm.py: on scikit-learn's digits, half a minute on a CPU. Nothing in the
network or its LightningModule knows of pruning; the channels of a residual sum shrink together.
"""
# ruff: noqa: D101, D102 - the methods are Lightning's own

import lightning.pytorch as pl
import torch
from prune_classifier import Digits
from torch import Tensor, nn

import lightning_prune as lp


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return convolution and norm, as every ResNet has them."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class ResidualClassifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        first = conv(1, 32), nn.ReLU(), Block(32)
        second = conv(32, 64, stride=2), nn.ReLU(), Block(64)
        self.features, self.head = nn.Sequential(*first, *second), nn.Linear(64, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.features(pictures).mean((2, 3)))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(
    folder: str = "outputs/by_norm", dense_epochs: int = 6, recovery_epochs: int = 10
) -> float:
    """Run the three phases; return the accuracy of what was saved and loaded.

    `lp.prune` with this recipe is the same in one call. As callbacks of a Trainer of your own the
    stages stand beside whatever else it has.
    """
    pl.seed_everything(0)
    data = Digits()
    stages = lp.recipes.channel(0.5, dense_epochs, recovery_epochs, folder=folder)
    epochs = dense_epochs + recovery_epochs
    trainer = pl.Trainer(max_epochs=epochs, callbacks=stages, default_root_dir=folder)
    trainer.fit(ResidualClassifier(), datamodule=data)
    trainer.save_checkpoint(f"{folder}/pruned.ckpt", weights_only=True)
    loaded = lp.load_pruned(ResidualClassifier, f"{folder}/pruned.ckpt")
    return trainer.validate(loaded, datamodule=data)[0]["val/accuracy"]


if __name__ == "__main__":
    main()
