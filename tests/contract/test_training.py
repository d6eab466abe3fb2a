"""Ways to train that a pruned run shares with any other: each is pruned, cut, and resumed."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from lightning_prune.callbacks.channels_last import ChannelsLast
from lightning_prune.surgery.architecture import track_architecture
from lightning_prune.surgery.memory_format import memory_format_of
from tests.contract.registry import EPOCHS, RECIPES, Classifier, Net, stages
from tests.contract.runs import QUIET, differences, fit

pytestmark = [
    *QUIET,
    pytest.mark.filterwarnings(
        # Rightly said: what the module does itself, the stage leaves alone.
        "ignore:OptimizerResetter.restart_lr=True. has no effect under manual optimization",
        "ignore:Using ModelCheckpoint with manual optimization",
        "ignore:Detected call of `lr_scheduler.step",
        # torch hides it by showing nothing, which is too late where warnings are errors.
        "ignore:The .grad attribute of a Tensor that is not a leaf",
    ),
]


class TwoOptimizers(Classifier):
    """Manual optimization, one optimizer for the features and one for the head."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        loss = super().training_step(batch, batch_idx)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self) -> Any:
        head = list(self.net.head.parameters())
        rest = [p for name, p in self.named_parameters() if "head" not in name]
        return torch.optim.SGD(rest, 0.05, momentum=0.9, weight_decay=1e-2), torch.optim.AdamW(head)


class Groups(Classifier):
    """Parameter groups of different rates, one of them empty of weight decay."""

    def configure_optimizers(self) -> Any:
        many = [p for p in self.parameters() if p.ndim > 1]
        few = [p for p in self.parameters() if p.ndim <= 1]
        return torch.optim.AdamW(
            [{"params": many, "lr": 3e-3}, {"params": few, "lr": 1e-3, "weight_decay": 0.0}]
        )


class Plateau(Classifier):
    """The learning rate falls after every epoch that brings nothing."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), 3e-3)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.9, patience=0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": plateau, "monitor": "val/score"},
        }


class Frozen(Classifier):
    """The stem does not train."""

    def __init__(self) -> None:
        super().__init__()
        self.net.stem.requires_grad_(False)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], 0.05, 0.9)


class Tied(Classifier):
    """Two convolutions of the residual block share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.net.inner = copy.deepcopy(self.net.outer)
        self.net.inner[0] = nn.Conv2d(16, 16, 3, 1, 1, bias=False)
        self.net.outer[0] = nn.Conv2d(16, 16, 3, 1, 1, bias=False)
        self.net.outer[0].weight = self.net.inner[0].weight
        track_architecture(self)


class Compiled(Classifier):
    """The network is compiled; the eager backend keeps the test quick."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.compile(self.net, backend="eager")


class Configured(Classifier):
    """The network is built in configure_model."""

    def __init__(self) -> None:
        super().__init__()
        del self.net

    def configure_model(self) -> None:
        if not hasattr(self, "net"):
            torch.manual_seed(0)
            self.net = Net()


def scaled() -> dict[str, Any]:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=scaler)]}


WAYS: dict[str, tuple[Callable[[], pl.LightningModule], Callable[[], dict[str, Any]]]] = {
    "accumulated gradients": (Classifier, lambda: {"accumulate_grad_batches": 2}),
    "gradients clipped by value": (
        Classifier, lambda: {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"},
    ),
    "16-mixed with a scaler": (Classifier, scaled),
    "bf16-mixed": (Classifier, lambda: {"precision": "bf16-mixed"}),
    "channels last": (Classifier, dict),
    "bf16-mixed, channels last": (Classifier, lambda: {"precision": "bf16-mixed"}),
    "manual, two optimizers": (TwoOptimizers, lambda: {"gradient_clip_val": None}),
    "parameter groups": (Groups, dict),
    "a plateau schedule": (Plateau, dict),
    "frozen parameters": (Frozen, dict),
    "tied parameters": (Tied, dict),
    "torch.compile": (Compiled, dict),
    "configure_model": (Configured, dict),
}  # fmt: skip


def train(
    recipe: str, way: str, folder: Path, ckpt: Path | None = None
) -> tuple[pl.Trainer, dict[str, Any]]:
    make, options = WAYS[way]
    build = stages(recipe, "classifier", folder)
    files = ModelCheckpoint(
        folder / "epoch", "{epoch}", save_top_k=-1, save_on_train_epoch_end=True,
        auto_insert_metric_name=False,
    )  # fmt: skip
    more = [ChannelsLast()] if "channels last" in way else []
    run = fit(
        folder, "classifier", [*build.values(), *more, files], ckpt, model=make(), **options()
    )
    last = torch.load(folder / "epoch" / f"{EPOCHS - 1}.ckpt", weights_only=True)
    return run, {"weights": last["state_dict"], "optimizers": last["optimizer_states"]}


def states_of(optimizers: list[torch.optim.Optimizer]) -> Iterator[torch.Tensor]:
    for optimizer in optimizers:
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, torch.Tensor))


@pytest.mark.parametrize(
    ("recipe", "way"),
    [
        pytest.param(
            recipe,
            way,
            # All ways with one recipe, and all recipes by night.
            marks=[pytest.mark.contract(f"trains with {way}")]
            + ([] if recipe == "channel" else [pytest.mark.slow]),
            id=f"{recipe}-classifier-{way}",
        )
        for recipe in RECIPES
        for way in WAYS
    ],
)
def test_a_way_to_train(recipe: str, way: str, tmp_path: Path) -> None:
    if RECIPES[recipe].by_batch and way.startswith("manual"):
        pytest.skip("only training_step itself can take gradients there: refused with this reason")
    if RECIPES[recipe].second_loss and way.startswith("manual"):
        pytest.skip("training_step returns no loss there: refused with this reason")
    run, ended = train(recipe, way, tmp_path / "whole")
    module = run.lightning_module
    assert all(bool(p.isfinite().all()) for p in module.parameters())
    if RECIPES[recipe].cuts:
        net, dense = module.net, Net()
        widths = [(getattr(net, n)[0], getattr(dense, n)[0]) for n in ("stem", "inner", "deep")]
        assert any(own.out_channels < wide.out_channels for own, wide in widths)
    trained = {id(p) for o in run.optimizers for g in o.param_groups for p in g["params"]}
    assert trained == {id(p) for p in module.parameters() if p.requires_grad}
    if "channels last" in way:
        kept = [*module.parameters(), *states_of(run.optimizers)]
        # One input channel: the strides of both formats are the same.
        assert {memory_format_of(v) for v in kept if v.ndim == 4 and v.shape[1] > 1} == {
            torch.channels_last
        }
    if way == "frozen parameters":
        assert not any(p.requires_grad for p in module.net.stem.parameters())
    if way == "tied parameters":
        assert module.net.outer[0].weight is module.net.inner[0].weight
    for epoch in (1, 4):  # masked, and cut
        _, again = train(recipe, way, tmp_path / str(epoch), tmp_path / f"whole/epoch/{epoch}.ckpt")
        assert differences(ended, again) == []
