"""Averaged copies, private parts of Lightning, the order of callbacks."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger

from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.trainer.averages import averaged_copies
from tests.callbacks.classifiers import GROUPS, Classifier, masker, trainer

AVERAGES = {
    "ours": lambda: ExponentialMovingAverage(0.95, 10.0),
    "mean": WeightAveraging,
    "ema": lambda: EMAWeightAveraging(decay=0.95),
    "swa": lambda: StochasticWeightAveraging(0.01, swa_epoch_start=2),
}
SWA_WARNINGS = ("ignore:.*swa_start.*", "ignore:.*SWA is currently only supported every epoch.*")


class Averages(pl.Callback):
    """Last in the list: follows what becomes of the averaged copy."""

    def __init__(self, stage, average):
        self.stage, self.average = stage, average
        self.ghosts, self.masked, self.counts = [], 0, {}
        self.cut_epoch = None

    def copy(self, trainer):
        (copy,) = averaged_copies(trainer)
        return copy

    def on_train_batch_end(self, trainer, pl_module, batch, outputs, batch_idx):
        plan = self.stage.plan
        if plan:
            self.masked += 1
            for name, layer in zip(GROUPS, ("stem", "inner", "deep"), strict=True):
                block = getattr(self.copy(trainer).net, layer)
                rows = plan.removed(name)
                if bool(block[0].weight[rows].any()) or bool(block[1].weight[rows].any()):
                    self.ghosts.append(name)
            if bool(self.copy(trainer).net.head.weight[:, plan.removed(GROUPS[2])].any()):
                self.ghosts.append("head")

    def on_channels_pruned(self, trainer, pl_module, pruned):
        self.cut_epoch = trainer.current_epoch
        copy, live = self.copy(trainer).state_dict(), pl_module.state_dict()
        assert copy.keys() == live.keys()
        self.restarted = all(torch.equal(copy[key].cpu(), live[key]) for key in live)


@pytest.mark.filterwarnings(*SWA_WARNINGS)
@pytest.mark.parametrize("name", AVERAGES)
def test_averages_are_masked_cut_and_restarted(name, tmp_path):
    stage, average = masker(start_epoch=2, hold_epochs=2), AVERAGES[name]()
    probe, model = Averages(stage, average), Classifier()
    run = trainer(tmp_path, [stage, PhysicalPruner(), average, probe], 6)
    run.fit(model)
    assert probe.masked == 12
    assert probe.ghosts == []
    assert probe.cut_epoch == 4
    assert probe.restarted
    (copy,) = averaged_copies(run)
    assert str(copy.net) == str(model.net)
    assert copy.net.deep[0].out_channels == 8
    # Lightning hands the average to the model at the end; SWA keeps its own norm statistics.
    for ours, theirs in zip(copy.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert run.validate(model, verbose=False)[0]["val/accuracy"] > 0.7


def test_the_average_after_the_cut_is_the_mean_since_the_cut(tmp_path):
    """Oracle: the plain mean of the weights after each step since the cut."""
    stage, weights = masker(), []

    class Since(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.current_epoch >= 1:
                weights.append(pl_module.net.deep[0].weight.detach().double().clone())

    model = Classifier()
    trainer(tmp_path, [stage, PhysicalPruner(), Since(), WeightAveraging()], 3).fit(model)
    assert len(weights) == 12
    mean = torch.stack(weights).mean(0)
    torch.testing.assert_close(model.net.deep[0].weight.double(), mean, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["ours", "ema", "swa"])
def test_an_average_before_the_stages_is_refused(name, tmp_path):
    callbacks = [AVERAGES[name](), masker(), PhysicalPruner()]
    kind = type(callbacks[0]).__name__
    with pytest.raises(
        ValueError, match=f"{kind} stands before PhysicalPruner.*pruning callbacks first"
    ):
        trainer(tmp_path, callbacks, 3).fit(Classifier())


def test_an_average_between_the_stages_is_refused_and_others_are_not(tmp_path):
    average = AVERAGES["ours"]()
    with pytest.raises(ValueError, match="put the pruning callbacks first"):
        trainer(tmp_path, [masker(), average, PhysicalPruner()], 3).fit(Classifier())
    other = pl.Callback()
    trainer(tmp_path, [other, masker(), PhysicalPruner(), AVERAGES["ours"]()], 2).fit(Classifier())


def test_learning_rates_are_monitored_across_the_cut(tmp_path):
    class Named(Classifier):
        def configure_optimizers(self):
            parts = super().configure_optimizers()
            return [parts["optimizer"]], [{"scheduler": parts["lr_scheduler"], "name": "mine"}]

    for model in (Classifier(), Classifier(schedule="step"), Named(schedule="step")):
        stages = [masker(), PhysicalPruner(), OptimizerResetter()]
        monitor, logger = LearningRateMonitor("step"), CSVLogger(tmp_path)
        run = trainer(tmp_path, [*stages, monitor], 3, logger=logger, log_every_n_steps=1)
        run.fit(model)
        assert sum(len(rates) for rates in monitor.lrs.values()) == 18


def test_checkpoints_and_stages_keep_their_order(tmp_path):
    """Lightning moves ModelCheckpoint to the end; the stages stay in front of it."""
    stages = [masker(), PhysicalPruner()]
    run = trainer(tmp_path, [ModelCheckpoint(tmp_path), *stages], 2, enable_checkpointing=True)
    run.fit(Classifier())
    kinds = [type(callback).__name__ for callback in run.callbacks]
    assert kinds.index("PhysicalPruner") < kinds.index("ModelCheckpoint")
