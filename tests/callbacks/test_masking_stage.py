"""What both maskers share, shown with the one that goes layer by layer."""

import lightning.pytorch as pl
import pytest
import torch

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.masking_stage import MaskingStage
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from tests.callbacks.classifiers import Classifier, masker, trainer
from tests.plain_stages import plain


class Lift(pl.Callback):
    """Lifts the masks of one group at the start of an epoch."""

    def __init__(self, stage, epoch, *names):
        self.stage, self.epoch, self.names = stage, epoch, list(names)

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            self.before = self.stage.plan
            self.stage.unprune(trainer, pl_module, self.names)
            self.after = {name: v.clone() for name, v in pl_module.state_dict().items()}


def test_a_layer_is_freed_while_others_are_still_to_come(tmp_path):
    """Layers are masked at the epochs 0, 1 and 2; the first returns before the third is masked."""
    stage = masker(layers_per_step=1, hold_epochs=1, recalibrate_images=0)
    assert isinstance(stage, MaskingStage)
    lift, model = Lift(stage, 2, "net.stem.0"), Classifier()
    trainer(tmp_path, [lift, stage, PhysicalPruner()], 5).fit(model)
    rows = lift.before.removed("net.stem.0")
    fresh = Classifier().state_dict()
    for key in ("net.stem.0.weight", "net.outer.0.weight", "net.outer.1.weight"):
        # Masked before the first batch, restored as they were; a masked column stays zero.
        columns = slice(None)
        if key == "net.outer.0.weight":
            columns = lift.before.keep["net.inner.0"]
            gone = lift.before.removed("net.inner.0")
            assert not bool(lift.after[key][:, gone].any())
            assert torch.equal(lift.after[key][rows][:, columns], fresh[key][rows][:, columns])
        else:
            assert torch.equal(lift.after[key][rows], fresh[key][rows])
    decision = next(d for d in stage.decisions if d.group == "net.stem.0")
    assert (decision.status, decision.reason) == ("left", "mask lifted")
    widths = [model.net.stem[0], model.net.inner[0], model.net.deep[0]]
    kept = {d.group: len(d.keep) for d in stage.decisions}
    assert [layer.out_channels for layer in widths] == [8, kept["net.inner.0"], kept["net.deep.0"]]
    assert kept["net.inner.0"] < 12
    assert kept["net.deep.0"] < 16


def test_two_stages_on_one_layer_both_hold_after_one_lets_go(tmp_path):
    """A row that returns must not bring back a column that the other stage masks."""
    first = plain(ChannelMasker, 0, 1, pruning_ratio=0.5, layers=["net.inner.0"], hold_epochs=3)
    second = masker(layers=["net.stem.0"], hold_epochs=3, recalibrate_images=0)
    lift, model = Lift(first, 1, "net.inner.0"), Classifier()
    trainer(tmp_path, [lift, first, second], 4, limit_train_batches=1).fit(model)
    rows = second.plan.removed("net.stem.0")
    assert not bool(lift.after["net.inner.0.weight"][:, rows].any())
    assert bool(lift.after["net.inner.0.weight"].flatten(1).any(1).all())


def test_a_checkpoint_from_before_has_no_originals():
    stage = masker()
    old = {k: v for k, v in stage.state_dict().items() if k != "originals"}
    stage.load_state_dict(old)
    assert stage.state_dict()["originals"] is None
    with pytest.warns(UserWarning, match="SequentialActivationMasker.unprune has no effect"):
        stage.unprune(None, None)
