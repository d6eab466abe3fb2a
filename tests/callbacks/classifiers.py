"""A small classifier with a residual block, data it learns in seconds, and a Trainer for it."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune.callbacks.sequential_activation_masker import SequentialActivationMasker
from lightning_prune.policies.selection.clusterer import ChannelClusterer
from lightning_prune.surgery.architecture import track_architecture
from tests.plain_stages import plain

CLASSES = 4
EXAMPLE = torch.zeros(1, 1, 8, 8)
GROUPS = ("net.stem.0", "net.inner.0", "net.deep.0")
FAST = ChannelClusterer(embedding="pca")  # t-SNE would take most of the suite's time


def patterns(count: int, seed: int) -> TensorDataset:
    """Noisy pictures of one fixed pattern per class."""
    fixed = torch.Generator().manual_seed(42)
    means = torch.randn(CLASSES, 1, 8, 8, generator=fixed)
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % CLASSES
    noise = torch.randn(count, 1, 8, 8, generator=generator)
    return TensorDataset(means[label] + 0.7 * noise, label)


def conv_bn(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class Net(nn.Module):
    """Stem, residual block, deep layer, head: three groups, one of them tied."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(1, 8)
        self.inner, self.outer = conv_bn(8, 12), conv_bn(12, 8)
        self.deep = conv_bn(8, 16, stride=2)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.outer(self.inner(x))
        return self.head(self.deep(x).mean((2, 3)))


class Foreign(pl.LightningModule):
    """A classifier that knows nothing of pruning."""

    def __init__(
        self, optimizer: str = "sgd", schedule: str | None = None, example: bool = True
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(0)
        self.net = Net()
        if example:
            self.example_input_array = EXAMPLE.clone()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/accuracy", self.accuracy(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/accuracy", self.accuracy(batch))

    def accuracy(self, batch: Any) -> Tensor:
        return (self(batch[0]).argmax(1) == batch[1]).float().mean()

    def make_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        if self.hparams["optimizer"] == "adamw":
            return torch.optim.AdamW(parameters, 3e-3, weight_decay=0.1)
        return torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=1e-2)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.parameters())
        if self.hparams["schedule"] is None:
            return optimizer
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(patterns(96, 1), batch_size=16)

    def collection_dataloader(self) -> DataLoader[Any]:
        return DataLoader(patterns(96, 1), batch_size=32)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(patterns(32, 2), batch_size=32)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(patterns(32, 3), batch_size=32)


class Classifier(Foreign):
    """The same, with checkpoints that describe themselves."""

    def __init__(
        self, optimizer: str = "sgd", schedule: str | None = None, example: bool = True
    ) -> None:
        super().__init__(optimizer, schedule, example)
        track_architecture(self)


class ManualClassifier(Classifier):
    """Manual optimization: one optimizer for the features, another for the head."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizers = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()

    def configure_optimizers(self) -> Any:
        head = list(self.net.head.parameters())
        rest = [p for name, p in self.named_parameters() if "head" not in name]
        return torch.optim.SGD(rest, 0.05, momentum=0.9, weight_decay=1e-2), torch.optim.AdamW(head)


def masker(**options: Any) -> SequentialActivationMasker:
    """A masker that needs milliseconds; by all objects, since little trained models miss many."""
    defaults: dict[str, Any] = {"clusterer": FAST, "keep_range": (0.25, 0.5), "matching": "all"}
    return plain(SequentialActivationMasker, **defaults | options)


def trainer(folder: Path, callbacks: list[Any], epochs: int = 4, **options: Any) -> pl.Trainer:
    """A quiet Trainer on the CPU."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
        "max_epochs": epochs,
    }
    return pl.Trainer(callbacks=callbacks, **defaults | options)
