"""A model, data and a masker of a few lines: the flow of the command line without a detector."""

from typing import Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Line(L.LightningModule):
    """Fit y = w x; `val/map50_95` is the number of finished epochs, `test/map50_95` is w."""

    def __init__(
        self,
        num_classes: int | None = None,
        names: list[str] | None = None,
        weights: str | None = None,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        lr: float = 0.1,
    ) -> None:
        super().__init__()
        if lr <= 0:
            raise ValueError(f"lr={lr} is not positive: pass the peak learning rate")
        self.save_hyperparameters(ignore="weights")
        self.pretrained = weights is not None
        self.w = nn.Parameter(torch.tensor(0.0 if weights is None else float(weights)))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        if self.w.abs() > 1e30:
            raise ValueError("the third step fails: w has left all bounds")
        x, y = batch
        loss = (self(x) - y).square().mean()
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val/map50_95", float(self.current_epoch + 1), batch_size=len(batch[0]))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("test/map50_95", self.w, batch_size=len(batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


class Points(L.LightningDataModule):
    """Points on y = 2 x."""

    def __init__(self, points: int = 8, names: list[str] | None = None) -> None:
        super().__init__()
        self.points = points
        self.names = names or ["line"]
        self.num_classes = len(self.names)
        self.image_size = 32

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        x = torch.linspace(0, 1, self.points)
        return DataLoader(TensorDataset(x, 2 * x), batch_size=4)

    val_dataloader = test_dataloader = train_dataloader


class DenseKeeper(L.Callback):
    """Save the dense model where the command line looks for it, then set w to one."""

    def __init__(self, start_epoch: int, folder: str) -> None:
        if start_epoch < 0:
            raise ValueError(f"start_epoch={start_epoch} is negative: pass an epoch")
        self.start_epoch = start_epoch
        self.folder = folder

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit" and self.start_epoch >= (trainer.max_epochs or 0):
            raise ValueError(f"start_epoch={self.start_epoch} comes after the last epoch")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == self.start_epoch and self.start_epoch > 0:
            trainer.save_checkpoint(f"{self.folder}/dense.ckpt")


class Scaler(L.Callback):
    """Multiply w once; training before does not depend on it."""

    acts_from = "start_epoch"

    def __init__(self, start_epoch: int, factor: float) -> None:
        self.start_epoch = start_epoch
        self.factor = factor

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Line) -> None:
        if trainer.current_epoch == self.start_epoch:
            pl_module.w.data *= self.factor


def fault() -> None:
    """Raise what no constructor raises about its arguments."""
    raise RuntimeError("a fault of the program")
