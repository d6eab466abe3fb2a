"""Readers that take over what masked channels said, in real runs."""

import copy

import lightning.pytorch as pl
import pytest
import torch
from torch.nn import functional as F

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.trainer.averages import averaged_copies
from lightning_prune.policies.criteria.fisher import Fisher
from lightning_prune.policies.criteria.reconstruction import Reconstruction
from tests.callbacks.classifiers import Classifier, masker, patterns, trainer
from tests.plain_stages import plain


def stage(**options):
    defaults = {
        "start_epoch": 2, "end_epoch": 3, "mac_target": 0.3, "criterion": Fisher(),
        "recalibrate_images": 96,
    }  # fmt: skip
    return plain(ChannelMasker, **defaults | options)


class AfterMask(pl.Callback):
    """The model, its averages and its loss on the training images once epoch 2 has masked it."""

    loss = 0.0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 2 and batch_idx == 0:
            images, labels = patterns(96, 1).tensors
            self.model = copy.deepcopy(pl_module).eval()
            with torch.no_grad():
                self.loss = float(F.cross_entropy(self.model(images), labels))
            self.averages = [copy.deepcopy(c) for c in averaged_copies(trainer)]


def loss_after_masking(tmp_path, **options) -> float:
    watch = AfterMask()
    pl.seed_everything(0)
    trainer(tmp_path, [stage(**options), watch, PhysicalPruner()], 4).fit(Classifier())
    return watch.loss


def test_the_masked_model_is_nearer_to_the_dense_one(tmp_path):
    without = loss_after_masking(tmp_path / "without")
    given = loss_after_masking(tmp_path / "given", compensate_images=96)
    assert given < 0.9 * without


def test_the_cut_removes_exactly_what_was_masked_and_training_goes_on(tmp_path):
    model = Classifier()
    run = trainer(tmp_path, [stage(compensate_images=96), PhysicalPruner()], 6)
    run.fit(model)  # PhysicalPruner compares the masked and the cut model
    assert model.net.deep[0].out_channels < 16
    assert float(run.validate(model, verbose=False)[0]["val/accuracy"]) > 0.9


def test_averages_start_anew_from_the_compensated_model(tmp_path):
    watch = AfterMask()
    chosen = [
        stage(compensate_images=96), PhysicalPruner(), watch, ExponentialMovingAverage(decay=0.99)
    ]  # fmt: skip
    trainer(tmp_path, chosen, 4).fit(Classifier())
    (average,) = watch.averages
    wanted = watch.model.state_dict()
    for name, value in average.state_dict().items():
        assert torch.equal(value, wanted[name]), name


def test_what_another_stage_masks_stays_zero(tmp_path):
    class Watch(pl.Callback):
        def __init__(self):
            self.found = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if first.plan:
                rows = first.plan.removed("net.inner.0")
                self.found += [bool(pl_module.net.inner[0].weight[rows].any())]
                self.found += [bool(pl_module.net.outer[0].weight[:, rows].any())]

    first = masker(start_epoch=1, layers=["net.inner.0"], hold_epochs=1)
    second = stage(layers=["net.inner.0", "net.stem.0"], mac_target=0.4, compensate_images=96)
    watch = Watch()
    trainer(tmp_path, [first, second, PhysicalPruner(), watch], 5).fit(Classifier())
    assert len(watch.found) > 12
    assert not any(watch.found)


def test_freed_groups_say_that_their_readers_keep_what_they_took(tmp_path):
    class Free(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                with pytest.warns(UserWarning, match="keep what they had taken over"):
                    chosen.unprune(trainer, pl_module)

    chosen = stage(compensate_images=96)
    trainer(tmp_path, [chosen, Free()], 4).fit(Classifier())
    assert not chosen.plan


def test_gradients_reach_the_sequential_masker_too(tmp_path):
    model = Classifier()
    chosen = masker(start_epoch=1, criterion=Fisher(), mac_target=0.4)
    trainer(tmp_path, [chosen, PhysicalPruner()], 4).fit(model)
    assert {decision.status for decision in chosen.decisions} == {"pruned"}
    assert model.net.deep[0].out_channels < 16


@pytest.mark.parametrize("criterion", [None, Reconstruction()])
def test_the_sequential_masker_refits_after_each_step(criterion, tmp_path):
    """Front to back over two steps; the cut removes what was masked, as PhysicalPruner compares."""
    losses = []
    for images in (0, 96):
        watch, model = AfterMask(), Classifier()
        chosen = masker(
            start_epoch=1, mac_target=0.3, layers_per_step=2, criterion=criterion,
            compensate_images=images, recalibrate_images=96,
        )  # fmt: skip
        pl.seed_everything(0)
        run = trainer(tmp_path / str(images), [chosen, watch, PhysicalPruner()], 5)
        run.fit(model)
        losses.append(watch.loss)
        assert model.net.deep[0].out_channels < 16
    assert losses[1] < losses[0]


def test_norms_follow_the_refit_by_themselves(tmp_path):
    without = loss_after_masking(tmp_path / "without", recalibrate_images=0)
    given = loss_after_masking(tmp_path / "given", recalibrate_images=0, compensate_images=96)
    assert given < without
