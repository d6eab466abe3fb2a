"""All recipes and modules that the contract suite runs: a new one joins by one entry here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchmetrics.classification import MulticlassAccuracy

from lightning_prune.cli.build import build_all
from lightning_prune.data.loader import ResumableLoader
from lightning_prune.data.sampler import PermutationSampler
from lightning_prune.detection.data.digits import DigitsDetectionDataModule
from lightning_prune.detection.module import DetectionModule
from lightning_prune.neural.data.simulated_cells import SimulatedCellsDataModule
from lightning_prune.neural.module import NeuralResponseModule
from lightning_prune.runs.configuration.config_folder import config_folder
from lightning_prune.runs.resume.exact_resume import ExactResume
from lightning_prune.surgery.architecture import track_architecture
from tests.callbacks.classifiers import CLASSES, conv_bn, patterns
from tests.networks import VisionTransformer

# --- modules ------------------------------------------------------------------------------------


class Noisy(Dataset[Any]):
    """Patterns with fresh noise, seeded by epoch and index as an augmentation should be."""

    def __init__(self, count: int, seed: int) -> None:
        self.patterns, self.seed = patterns(count, seed), seed

    def __len__(self) -> int:
        return len(self.patterns)

    def __getitem__(self, key: Any) -> tuple[Tensor, Tensor]:
        epoch, index = key
        picture, label = self.patterns[index]
        generator = torch.Generator().manual_seed(hash((self.seed, epoch, index)) % 2**31)
        return picture + 0.1 * torch.randn(picture.shape, generator=generator), label


class Net(nn.Module):
    """Stem, residual block, deep layer, dropout, head; widths that slices and rounding divide."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(1, 16)
        self.inner, self.outer = conv_bn(16, 24), conv_bn(24, 16)
        self.deep = conv_bn(16, 32, stride=2)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.outer(self.inner(x))
        return self.head(self.dropout(self.deep(x).mean((2, 3))))


class Classifier(pl.LightningModule):
    """A classifier with all that a resume can get wrong: dropout, schedule, metrics, noisy data."""

    def __init__(self, workers: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(0)
        self.net = self.network()
        self.accuracy = MulticlassAccuracy(CLASSES)
        self.example_input_array = torch.zeros(1, 1, 8, 8)
        track_architecture(self)

    def network(self) -> nn.Module:
        return Net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        scores = self(batch[0])
        loss = F.cross_entropy(scores, batch[1])
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.accuracy(scores, batch[1])
        self.log("train/accuracy", self.accuracy, on_step=False, on_epoch=True)
        if batch_idx == 0:
            self.log("train/first", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/score", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/score", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), 3e-3, weight_decay=0.1)
        # Asking for the number of steps makes Lightning build the loaders early.
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 3e-3, int(self.trainer.estimated_stepping_batches)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def train_dataloader(self) -> ResumableLoader:
        data = Noisy(96, 1)
        sampler = PermutationSampler(data, 0, self.trainer.global_rank, self.trainer.world_size)
        return ResumableLoader(
            data,
            sampler=sampler,
            progress=self._completed,
            batch_size=24 // self.trainer.world_size,
            num_workers=self.hparams["workers"],
            persistent_workers=self.hparams["workers"] > 0,
        )

    def _completed(self) -> int:
        done = int(self.trainer.fit_loop.epoch_loop.batch_progress.current.processed)
        return -1 if done >= self.trainer.num_training_batches else done

    def collection_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(patterns(96, 1), batch_size=32)

    def val_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(patterns(32, 2), batch_size=32)

    def test_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(patterns(32, 3), batch_size=32)


class Transformer(Classifier):
    """The same with attention: heads, MLP and residual widths are groups."""

    def network(self) -> nn.Module:
        return VisionTransformer(CLASSES, dropout=0.1)


@dataclass(frozen=True)
class Module:
    """A LightningModule of the contract.

    Attributes:
        make: builds it with this number of loader workers.
        data: builds its DataModule with this number of workers; None: it has its own loaders.
        batches: training batches of an epoch.
        metric: what validation logs, larger is better.
        overrides: what makes any recipe small on it.
        slow: whether a run takes more than a few seconds.
        without: recipes that it has no layers for.
        still: parameters with entries that the loss does not depend on.
    """

    make: Callable[[int], pl.LightningModule]
    data: Callable[[int], pl.LightningDataModule] | None
    batches: int
    metric: str
    overrides: tuple[str, ...] = ()
    slow: bool = False
    without: tuple[str, ...] = ()
    still: tuple[str, ...] = ()


def digits(workers: int) -> DigitsDetectionDataModule:
    return DigitsDetectionDataModule(
        image_size=64, train_images=12, val_images=4, test_images=4, batch_size=4, mosaic=0.5,
        num_workers=workers,
    )  # fmt: skip


def detector(workers: int) -> DetectionModule:
    torch.manual_seed(0)
    return DetectionModule(num_classes=10, image_size=64)


def recordings(workers: int) -> SimulatedCellsDataModule:
    return SimulatedCellsDataModule(
        cells=[4, 3], pixels=15, trials=5, repeated_trials=0, trial_seconds=0.6, photos=2,
        batch_size=24, num_workers=workers, stride=4,
    )  # fmt: skip


def neural(workers: int) -> NeuralResponseModule:
    torch.manual_seed(0)
    modulator = {"feature_dim": 24, "hidden_dim": 16, "beh_emb_dim": 8}
    return NeuralResponseModule(
        cells=[4, 3], frame_shape=[15, 15], convnet={"channels": [8, 16, 24]}, modulator=modulator
    )


_NEURAL_LAYERS = "network.convnet.blocks.1.*,network.modulator.gru.*"
MODULES = {
    "classifier": Module(Classifier, None, 4, "val/score", ("monitor=val/score",)),
    "transformer": Module(
        Transformer,
        None,
        4,
        "val/score",
        ("monitor=val/score",),
        without=("bn_scale",),
        slow=True,
        # The bias of keys adds the same to all scores of a query.
        still=("net.blocks.0.qkv.bias", "net.blocks.1.qkv.bias"),
    ),
    "detection": Module(
        detector,
        digits,
        3,
        "val/map50_95",
        ("pruning.masker.layers=[network.backbone.p5.*]", "pruning.masker.mac_target=null"),
        slow=True,
    ),
    "neural": Module(
        neural,
        recordings,
        3,
        "val/bps",
        (
            "monitor=val/bps",
            f"pruning.masker.layers=[{_NEURAL_LAYERS}]",
            "pruning.masker.mac_target=null",
        ),
        slow=True,
    ),
}

# --- recipes ------------------------------------------------------------------------------------

DENSE, RECOVERY = 1, 5
EPOCHS = DENSE + RECOVERY
_NO_COST = ("pruning.report.latency_rounds=0", "pruning.report.figures=false")


@dataclass(frozen=True)
class Recipe:
    """A recipe of conf/pruning.

    Attributes:
        cuts: whether it ends with a narrower model.
        files: its files in conf/pruning as Hydra takes them; None: that of its name.
        stage: the stage that decides.
        by_batch: whether it decides by gradients of single batches: by which samples are in one,
            and never under manual optimization.
        alike: whether all of its stages are in others too, so that it waits for the full matrix.
        second_loss: whether a stage adds a loss to that of the module.
        overrides: what makes it small, on any module.
        by_module: and on one module.
    """

    cuts: bool
    overrides: tuple[str, ...] = _NO_COST
    by_module: dict[str, tuple[str, ...]] = field(default_factory=dict)
    files: str | None = None
    stage: str = "masker"
    by_batch: bool = False
    alike: bool = False
    second_loss: bool = False


_HALF = ("pruning.masker.pruning_ratio=0.5",)
# So narrow layers lose a block at the first step already.
_BY_RATIO = {"detection": _HALF, "neural": (*_HALF, "pruning.masker.round_to=2")}
# Only these have norms with a scale for each channel.
_NORMED = ("pruning.masker.layers=[network.convnet.blocks.*.main.conv.pointwise]",)
# So that there is something to reset at two epochs: the modules have no channel that is dead.
_RESETS = (
    *_NO_COST,
    "pruning.channel_resetter.every_n_epochs=2",
    "pruning.channel_resetter.end_epoch=null",
    "pruning.channel_resetter.min_batches=3",
    "pruning.channel_resetter.threshold=0.4",
)
# Its channels are spread about 0.4, and the mean of half a batch may lie on the other side of it.
_RESETS_ALL = {"transformer": ("pruning.channel_resetter.threshold=5",)}
_SLICED = "[network.convnet.blocks.*.main.conv.pointwise,network.modulator.gru.*]"
_SLICE_LAYERS = {
    "classifier": ("pruning.masker.layers=null",),
    "transformer": ("pruning.masker.layers=null",),
    "neural": (f"pruning.masker.layers={_SLICED}",),
}
_BY_CLASS = (
    *_NO_COST,
    "pruning.masker.matching=all",
    "pruning.masker.clusterer.embedding=pca",
    "pruning.masker.layers_per_step=2",
)
_BY_CLASS_IN = {
    "detection": ("pruning.masker.layers_per_step=5",),
    "neural": ("pruning.masker.background=false", "pruning.masker.round_to=4"),
}
RECIPES = {
    "sequential_activation": Recipe(True, _BY_CLASS, _BY_CLASS_IN),
    "separability": Recipe(True, _BY_CLASS, _BY_CLASS_IN, alike=True),
    "channel": Recipe(True, by_module=_BY_RATIO),
    "bn_scale": Recipe(
        True,
        by_module=_BY_RATIO | {"neural": (*_BY_RATIO["neural"], *_NORMED)},
        alike=True,
    ),
    "magnitude": Recipe(True, by_module=_BY_RATIO, alike=True),
    "compress": Recipe(
        True,
        (*_NO_COST, "pruning.label_free_steps.steps=4", "pruning.masker.compensate_images=64"),
        by_module=_BY_RATIO,
    ),
    "slice": Recipe(False, by_module=_SLICE_LAYERS, alike=True),
    "channel_and_slice": Recipe(
        True,
        stage="slice_masker",
        by_module={
            "classifier": ("pruning.slice_masker.layers=null",),
            "transformer": ("pruning.slice_masker.layers=null",),
            "detection": _HALF,
            "neural": (
                *_BY_RATIO["neural"],
                f"pruning.slice_masker.layers={_SLICED}",
                "pruning.slice_masker.block_size=2",
            ),
        },
    ),
    "neural": Recipe(
        True,
        # So that every layer loses channels, whatever its rank.
        (*_NO_COST, "pruning.masker.ranking=local"),
        by_module=_BY_RATIO,
        by_batch=True,
    ),
    "channel_reset": Recipe(
        False, _RESETS, by_module=_RESETS_ALL, stage="channel_resetter", alike=True
    ),
    "channel_with_reset": Recipe(
        True,
        (*_RESETS, "pruning.channel_resetter.reset_type=original"),
        by_module=_BY_RATIO | _RESETS_ALL,
        files="[channel,channel_reset]",
    ),
    "channel_distilled": Recipe(
        True,
        (*_NO_COST, "+stage@pruning.distiller=distiller"),
        by_module=_BY_RATIO,
        files="channel",
        second_loss=True,
    ),
}


def stages(
    recipe: str, module: str, folder: Path, overrides: Sequence[str] = ()
) -> dict[str, Callback]:
    """Build the callbacks of a recipe as the command line does, small enough for a test."""
    general = MODULES[module].overrides
    if recipe == "slice":  # it chooses layers of its own, and has no target
        general = tuple(word for word in general if not word.startswith("pruning.masker."))
    words = [
        f"+pruning={RECIPES[recipe].files or recipe}",
        f"dense_epochs={DENSE}",
        f"recovery_epochs={RECOVERY}",
        *general,
        *RECIPES[recipe].overrides,
        *RECIPES[recipe].by_module.get(module, ()),
        *overrides,
    ]
    if recipe == "channel_reset":
        words = [word for word in words if "masker" not in word]
    cfg = _composed(tuple(words))
    cfg.output_dir = str(folder)
    return build_all(cfg.pruning, "pruning")


@cache
def _composed(words: tuple[str, ...]) -> DictConfig:
    """Compose a recipe once for all runs of it: that takes longer than their training."""
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra.compose("train", list(words))


def trainer(folder: Path, callbacks: Sequence[Callback], **options: Any) -> pl.Trainer:
    """A quiet Trainer on the CPU that clips gradients and can resume exactly."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
        "max_epochs": EPOCHS,
        "log_every_n_steps": 2,
        "gradient_clip_val": 1.0,
    }
    return pl.Trainer(callbacks=[*callbacks, ExactResume()], **defaults | options)
