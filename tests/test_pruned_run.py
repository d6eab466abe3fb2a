"""One call trains, prunes and fine-tunes; what it cannot do it says before."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

import lightning_prune as lp
from lightning_prune.pruned_run import prune
from tests.callbacks.classifiers import Foreign

SMALL = {"round_to": 2, "criterion": lp.criteria.Magnitude()}


class Patterns(pl.LightningDataModule):
    train_dataloader, val_dataloader = Foreign.train_dataloader, Foreign.val_dataloader


class Killed(pl.Callback):
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("the power went")


@pytest.fixture
def quiet() -> dict[str, Any]:
    return {"accelerator": "cpu", "enable_progress_bar": False, "num_sanity_val_steps": 0}


def test_one_call_prunes_and_what_it_saved_loads(tmp_path: Path, quiet: dict[str, Any]):
    module = Foreign()
    data = Patterns()
    run = prune(
        module, data, mac_target=0.6, dense_epochs=1, recovery_epochs=3, folder=tmp_path,
        trainer=quiet, monitor="val/accuracy", **SMALL,
    )  # fmt: skip
    assert run.module is module
    assert run.trainer.current_epoch == 4
    report = json.loads((tmp_path / "pruning_report.json").read_text())
    assert report["pruned"]["macs"] <= 0.6 * report["dense"]["macs"]
    assert report["pruned"]["parameters"] == sum(p.numel() for p in module.parameters())
    loaded = lp.load_pruned(Foreign, run.checkpoint)
    assert all(map(torch.equal, loaded.state_dict().values(), module.state_dict().values()))
    assert run.loading == f"lightning_prune.load_pruned(Foreign, '{run.checkpoint}')"
    for name in ("best_pruned", "dense", "last"):
        assert (tmp_path / "checkpoints" / f"{name}.ckpt").is_file()
    assert (tmp_path / "metrics.csv").read_text().count("\n") > 4


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_an_interrupted_call_continues_bit_by_bit(tmp_path: Path, quiet: dict[str, Any]):
    def call(folder: str, **more: Any) -> lp.PrunedRun:
        pl.seed_everything(0)
        epochs = {"dense_epochs": 1, "recovery_epochs": 3}
        return prune(
            Foreign(),
            mac_target=0.6,
            folder=tmp_path / folder,
            trainer=quiet,
            **epochs,
            **SMALL,
            **more,
        )

    whole = call("whole")
    with pytest.raises(RuntimeError, match="power"):
        call("parts", callbacks=[Killed()])
    second = call("parts", ckpt_path=tmp_path / "parts" / "checkpoints" / "last.ckpt")
    ours, theirs = second.module.state_dict(), whole.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_stages_of_ones_own_and_callbacks_beside_them(tmp_path: Path, quiet: dict[str, Any]):
    seen: list[int] = []

    class Watch(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen.append(trainer.current_epoch)

    stages = lp.recipes.channel_reset(dense_epochs=1, min_batches=1, every_n_epochs=None)
    more = quiet | {"max_epochs": 2, "callbacks": Watch()}
    run = prune(
        Foreign(), None, stages, callbacks=[lp.ExactResume()], trainer=more, folder=tmp_path
    )
    assert seen == [0, 1]
    assert sum(isinstance(one, lp.ExactResume) for one in run.trainer.callbacks) == 1


def test_a_module_that_comes_trained_is_pruned_at_once(monkeypatch: pytest.MonkeyPatch):
    made: dict[str, Any] = {}

    def recipe(**settings: Any) -> list[pl.Callback]:
        made.update(settings)
        raise KeyboardInterrupt

    monkeypatch.setitem(lp.recipes.RECIPES, "channel", recipe)
    for pretrained, epochs in ((True, 0), (False, 12)):
        module = Foreign()
        module.pretrained = pretrained
        with pytest.raises(KeyboardInterrupt):
            prune(module)
        assert made["dense_epochs"] == epochs


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ((torch.nn.Linear(1, 1),), TypeError, "module is a Linear: pass a LightningModule"),
        ((Foreign(), [1]), TypeError, "datamodule is a list: pass a LightningDataModule"),
        ((Foreign(), None, "chanel"), ValueError, r"unknown\. Did you mean 'channel'\? Allowed"),
        ((Foreign(), None, [3]), TypeError, "recipe has a int in it"),
        ((Foreign(), None, [pl.Callback()]), ValueError, r"pass trainer=\{'max_epochs'"),
    ],
)
def test_what_is_wrong_is_said_before_training(
    arguments: tuple[Any, ...], error: type[Exception], sentence: str
):
    with pytest.raises(error, match=sentence):
        prune(*arguments)


def test_settings_beside_stages_of_ones_own_are_refused():
    with pytest.raises(TypeError, match="mac_target: stages of your own have their settings"):
        prune(Foreign(), None, [pl.Callback()], mac_target=0.5)
    with pytest.raises(TypeError, match=r"mac_traget=0\.5 .* Did you mean mac_target\?"):
        prune(Foreign(), mac_traget=0.5)
