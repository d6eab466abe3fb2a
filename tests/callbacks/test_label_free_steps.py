"""Steps without labels right after the cut, in real runs."""

import copy
import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lightning_prune import ChannelMasker, LabelFreeSteps, PhysicalPruner, PruningReport, recipes
from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.callbacks.trainer.averages import averaged_copies
from lightning_prune.engine.calibration_set import CalibrationSet
from lightning_prune.engine.kept_features import kept_features
from lightning_prune.engine.label_free_steps import label_free_steps
from lightning_prune.engine.output_agreement import agreement, outputs_of
from lightning_prune.files.read_checkpoint import read_checkpoint
from tests.callbacks.classifiers import Classifier, Foreign, patterns, trainer
from tests.plain_stages import plain


def masks(folder: Path, **options: Any) -> ChannelMasker:
    """Mask half of the channels at the start of epoch 1, in one step, and have them cut there."""
    chosen = {"start_epoch": 1, "end_epoch": 2, "pruning_ratio": 0.5, "hold_epochs": 0}
    dense = str(folder / "dense.ckpt")
    return plain(ChannelMasker, **{**chosen, "dense_checkpoint": dense, **options})


class AfterSteps(pl.Callback):
    """The model before and after the steps, and what was cut."""

    def on_channels_pruned(self, trainer: Any, pl_module: Any, pruned: Any) -> None:
        self.pruned = pruned
        self.before = copy.deepcopy(pl_module)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if hasattr(self, "before") and not hasattr(self, "after"):
            self.after = copy.deepcopy(pl_module)
            self.averages = [copy.deepcopy(c) for c in averaged_copies(trainer)]


def fit(folder: Path, model: pl.LightningModule, *further: Any, **options: Any) -> AfterSteps:
    pl.seed_everything(0, verbose=False)
    watch, ckpt = AfterSteps(), options.pop("ckpt_path", None)
    stages = [options.pop("masker", None) or masks(folder), plain(PhysicalPruner), watch]
    run = trainer(folder, [*stages, *further], options.pop("epochs", 3), **options)
    run.fit(model, ckpt_path=ckpt, weights_only=True)
    return watch


def dense_network(folder: Path) -> nn.Module:
    network = Foreign()
    network.load_state_dict(read_checkpoint(folder / "dense.ckpt")["state_dict"])
    return network


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    a, b = ours.state_dict(), theirs.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_cut_network_comes_nearer_to_the_dense_one(tmp_path: Path):
    steps = LabelFreeSteps(60, images=96, peak_lr=5e-3)
    watch = fit(tmp_path, Classifier(), steps)
    taken = steps.taken
    assert taken.kept > 0
    assert taken.after > taken.before + 0.05
    dense, others = dense_network(tmp_path), [patterns(64, 9).tensors[0]]  # never seen
    wanted = outputs_of(dense, others)
    found = [agreement(net, others, wanted) for net in (watch.before, watch.after)]
    assert found[1] > found[0]


def test_the_stage_takes_the_steps_of_the_function(tmp_path: Path):
    """Oracle: label_free_steps on a copy of the cut network."""
    watch = fit(tmp_path, Classifier(), LabelFreeSteps(12, images=96, peak_lr=2e-3, seed=3))
    dense, own = dense_network(tmp_path), watch.before
    images = patterns(96, 1).tensors[0]
    pictures = CalibrationSet.of(own, images.split(32))
    wanted = outputs_of(dense, pictures.held_back)
    features = kept_features(dense, watch.pruned.groups, watch.pruned.plan)
    label_free_steps(
        own, dense, pictures.fitted, lambda: agreement(own, pictures.held_back, wanted),
        features=features, steps=12, lr=2e-3, seed=3,
    )  # fmt: skip
    assert same(own, watch.after)


def test_steps_that_harm_are_taken_back(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    steps = LabelFreeSteps(10, images=96, peak_lr=50.0)
    with caplog.at_level("INFO"):
        watch = fit(tmp_path, Classifier(), steps)
    assert steps.taken.kept == 0
    assert same(watch.before, watch.after)
    assert "they were taken back" in caplog.text


def test_training_goes_on_and_averages_start_again(tmp_path: Path):
    model = Classifier()
    watch = fit(
        tmp_path, model, LabelFreeSteps(8, images=96), ExponentialMovingAverage(decay=0.9), epochs=4
    )
    (average,) = watch.averages
    assert same(average, watch.after)
    assert not torch.equal(model.net.deep[0].weight, watch.after.net.deep[0].weight)


def test_random_states_are_left_as_they_were(tmp_path: Path):
    class Drawn(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, index: int):
            if trainer.current_epoch == 1 and index == 0:
                self.state = torch.get_rng_state()

    states = []
    for further in ((), (LabelFreeSteps(5, images=96, mirror=True),)):
        drawn = Drawn()
        fit(tmp_path / str(len(further)), Classifier(), *further, drawn)
        states.append(drawn.state)
    assert torch.equal(*states)


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_resumed_run_equals_the_uninterrupted_one(epoch: int, tmp_path: Path):
    """Before the cut, and behind it: the steps are made once."""

    class Save(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == epoch:
                trainer.save_checkpoint(tmp_path / "saved.ckpt")

    whole, resumed = Classifier(), Classifier()
    fit(tmp_path, whole, LabelFreeSteps(6, images=96), Save())
    again = LabelFreeSteps(6, images=96)
    fit(tmp_path, resumed, again, ckpt_path=tmp_path / "saved.ckpt")
    assert same(whole, resumed)
    assert again.taken.steps == 6


@pytest.mark.parametrize("epoch", [0, 1])
def test_only_a_run_before_the_cut_needs_the_dense_network(epoch: int, tmp_path: Path):
    """Before the first mask it is written again; behind the cut nobody asks for it."""

    class Save(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    fit(tmp_path, Classifier(), LabelFreeSteps(4, images=96), Save())
    (tmp_path / "dense.ckpt").unlink()
    again = LabelFreeSteps(4, images=96)
    fit(tmp_path, Classifier(), again, ckpt_path=tmp_path / f"{epoch}.ckpt")
    assert again.taken is not None
    assert again.taken.steps == 4
    assert (tmp_path / "dense.ckpt").is_file() == (epoch == 0)  # masked, and written, once more


def test_the_report_says_what_it_brought(tmp_path: Path):
    steps = LabelFreeSteps(8, images=96)
    report = PruningReport(str(tmp_path), figures=False, latency_rounds=0)
    fit(tmp_path, Classifier(), steps, report)
    content = json.loads((tmp_path / "pruning_report.json").read_text())
    assert content["label_free"] == steps.label_free
    assert content["label_free"]["steps"] == 8


def test_there_must_be_a_dense_network(tmp_path: Path):
    with pytest.raises(ValueError, match="no dense network to learn from: set dense_checkpoint"):
        fit(tmp_path, Classifier(), LabelFreeSteps(), masker=masks(tmp_path, dense_checkpoint=None))
    with pytest.raises(ValueError, match="there is no such file"):
        fit(tmp_path, Classifier(), LabelFreeSteps(teacher=str(tmp_path / "none.ckpt")))
    with pytest.raises(ValueError, match="no callback masks channels"):
        trainer(tmp_path, [LabelFreeSteps()], 1).fit(Classifier())
    with pytest.raises(ValueError, match="pass folder=PATH"):
        recipes.compress()


def test_few_images_hold_none_back(tmp_path: Path):
    with pytest.warns(UserWarning, match="LabelFreeSteps has no effect: .* too few"):
        fit(tmp_path, Few(), LabelFreeSteps(4))


class Few(Classifier):
    """Three training images."""

    def collection_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(patterns(3, 1), batch_size=3)
