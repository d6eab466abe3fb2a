"""Where importances are not finite nothing is decided, and a later step tries again."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.slice_masker import SliceMasker
from lightning_prune.policies.criteria.fisher import Fisher
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.criteria.non_finite_importance import check_finite
from lightning_prune.policies.criteria.taylor import Taylor
from lightning_prune.policies.selection import slice_selection
from tests.callbacks.classifiers import Classifier, masker, patterns, trainer
from tests.plain_stages import plain

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed from")


class Spoilt(Classifier):
    """In some epochs one collected image is NaN: so are activations and losses, not the weights."""

    def __init__(self, *epochs):
        super().__init__()
        self.epochs = epochs

    def collection_dataloader(self):
        data = patterns(96, 1)
        if self.trainer.current_epoch in self.epochs:
            data.tensors[0][5, 0, 2, 2] = torch.nan
        return DataLoader(data, batch_size=32)


class BadNorm(GroupNorm):
    """Infinite for two channels of a group in some epochs."""

    def __init__(self, *epochs):
        super().__init__()
        self.epochs, self.epoch = epochs, 0

    def importance(self, evidence):
        values = super().importance(evidence).clone()
        if self.epoch in self.epochs and evidence.group.name == "net.inner.0":
            values[[2, 7]] = torch.inf
        return values


class Clock(pl.Callback):
    """First in the list: tells a criterion the epoch, and notes what is masked at each end."""

    def __init__(self, stage):
        self.stage, self.masked = stage, []

    def on_train_epoch_start(self, trainer, pl_module):
        if hasattr(self.stage, "criterion"):
            self.stage.criterion.epoch = trainer.current_epoch

    def on_train_epoch_end(self, trainer, pl_module):
        self.masked.append(bool(getattr(self.stage, "plan", None)))


def fit(folder, stage, model, epochs, *extra, **options):
    clock, pruner = Clock(stage), PhysicalPruner()
    run = trainer(folder, [clock, stage, pruner, *extra], epochs, **options)
    with pytest.warns(UserWarning) as told:
        run.fit(model)
    texts = [str(w.message) for w in told]
    return clock, pruner, [text for text in texts if "masks nothing" in text], texts


def test_a_later_step_of_the_schedule_tries_again(tmp_path):
    stage = plain(ChannelMasker, 1, 4, pruning_ratio=0.6, criterion=BadNorm(1), hold_epochs=1)
    clock, pruner, told, _ = fit(tmp_path, stage, Classifier(), 6)
    assert told == [
        "ChannelMasker masks nothing at the start of epoch 2 (global step 6): the importance by "
        "BadNorm is NaN or infinite for 2 of the 12 channels of 'net.inner.0'. The next step that "
        "is due tries again; where it fails too, lower the learning rate, clip gradients, or look "
        "for training images and activations that are not finite"
    ]
    assert clock.masked == [False, False, True, True, False, False]
    assert pruner.done


@pytest.mark.parametrize("hold", [0, 1])
def test_a_last_step_that_failed_is_made_up_for(hold, tmp_path):
    stage = plain(ChannelMasker, 1, 2, pruning_ratio=0.5, criterion=BadNorm(1, 2), hold_epochs=hold)
    clock, pruner, told, _ = fit(tmp_path, stage, Classifier(), 6)
    assert len(told) == 2
    assert clock.masked == [False, False, False, *[True] * hold, *[False] * (3 - hold)]
    assert pruner.done
    # Oracle: the same schedule, due at that epoch in the first place.
    model = Classifier()
    later = plain(ChannelMasker, 3, 4, pruning_ratio=0.5, hold_epochs=hold)
    trainer(tmp_path, [later, PhysicalPruner()], 6).fit(model)
    theirs = {d.group: d.keep.tolist() for d in later.decisions}
    assert {d.group: d.keep.tolist() for d in stage.decisions} == theirs


def test_a_run_in_which_every_step_failed_says_so(tmp_path):
    stage = plain(ChannelMasker, 1, 2, pruning_ratio=0.5, criterion=BadNorm(*range(9)))
    _, pruner, told, texts = fit(tmp_path, stage, Classifier(), 4)
    assert len(told) == 3
    assert any(text.startswith("ChannelMasker has no effect: at no step") for text in texts)
    assert not pruner.done


def test_it_survives_a_resume(tmp_path):
    """Nothing is masked after the schedule's end: neither refused nor tried twice in an epoch."""
    files = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    stage = plain(ChannelMasker, 1, 2, pruning_ratio=0.5, criterion=BadNorm(1, 2), hold_epochs=1)
    whole = Classifier()
    fit(tmp_path, stage, whole, 6, files, enable_checkpointing=True)
    again = plain(ChannelMasker, 1, 2, pruning_ratio=0.5, criterion=BadNorm(1, 2), hold_epochs=1)
    model = Classifier()
    other = ModelCheckpoint(tmp_path / "again", "{epoch}", save_top_k=-1)
    stages = [Clock(again), again, PhysicalPruner(), other]
    run = trainer(tmp_path, stages, 6, enable_checkpointing=True)
    run.fit(model, ckpt_path=tmp_path / "epoch=2.ckpt", weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize("criterion", [Taylor, Fisher])
def test_gradients_of_a_spoilt_image(criterion, tmp_path):
    stage = plain(ChannelMasker, 1, 3, pruning_ratio=0.5, criterion=criterion(), hold_epochs=1)
    clock, pruner, told, _ = fit(tmp_path, stage, Spoilt(1), 5)
    (text,) = told
    assert f"the importance by {criterion.__name__} is NaN or infinite for 8 of the 8" in text
    assert clock.masked == [False, False, True, False, False]
    assert pruner.done


@pytest.mark.parametrize("target", [None, 0.5])
@pytest.mark.parametrize("step", [None, 1])
def test_activations_of_a_spoilt_image(target, step, tmp_path):
    stage = masker(
        start_epoch=1, mac_target=target, layers_per_step=step, hold_epochs=1, recalibrate_images=0
    )
    clock, pruner, told, _ = fit(tmp_path, stage, Spoilt(1), 7)
    (text,) = told
    assert text.startswith(
        "SequentialActivationMasker masks nothing at the start of epoch 2 (global step 6): the "
        "activation of layer 'net.stem.0' is NaN or infinite for 8 of the 8 channels of "
        "'net.stem.0'. The next step"
    )
    # Layer by layer the second catches up in epoch 2, and the last is due in epoch 3 as planned.
    ends = 1 if step is None else 2
    assert clock.masked == [False, False, *[True] * ends, *[False] * (5 - ends)]
    assert pruner.done


def test_the_groups_before_a_bad_one_are_kept(tmp_path):
    criterion = BadNorm(1)
    stage = masker(start_epoch=1, criterion=criterion, hold_epochs=2, recalibrate_images=0)
    clock, pruner, told, _ = fit(tmp_path, stage, Classifier(), 6)
    assert len(told) == 1
    # Front to back: the stem is masked in epoch 1, the others in epoch 2, and held for two epochs.
    assert clock.masked == [False, True, True, True, False, False]
    assert pruner.done


def test_a_sequential_run_that_ends_too_early_says_so(tmp_path):
    stage = masker(start_epoch=1, hold_epochs=1, recalibrate_images=0)
    _, pruner, _, texts = fit(tmp_path, stage, Spoilt(*range(9)), 3)
    assert any("ends before all channels could be chosen and cut: in epoch 3" in t for t in texts)
    assert not pruner.done


def test_slices_are_tried_again(tmp_path, monkeypatch):
    real, state = slice_selection.slice_norms, {"epoch": 0}

    def norms(filters, *rest):
        found = real(filters, *rest)
        if state["epoch"] in (1, 3, 4):
            found.view(-1)[0] = torch.nan
        return found

    class Tell(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            state["epoch"] = trainer.current_epoch

    monkeypatch.setattr(slice_selection, "slice_norms", norms)
    stage = SliceMasker(block_size=4, start_epoch=1, end_epoch=3, pruning_ratio=0.5)
    shares = []

    class Shares(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            shares.append(max(stage.slice_share.values(), default=0.0))

    run = trainer(tmp_path, [Tell(), stage, Shares()], 7)
    with pytest.warns(UserWarning) as told:
        run.fit(Classifier())
    texts = [str(w.message) for w in told if "masks nothing" in str(w.message)]
    assert len(texts) == 3
    assert "epoch 2 (global step 6): the L2 norm is NaN or infinite for 1 of the 18" in texts[0]
    assert texts[0].split("slices of ")[1].startswith("'net.stem.0'")
    # At epoch 2 the ratio of that step; the last look at epoch 3 is made up for at epoch 5.
    assert shares == [0, 0, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_all_that_is_finite_passes():
    check_finite(torch.tensor([[0.0, -1.0], [1e30, 2.0]]), "the norm", "stem")
    with pytest.raises(ValueError, match="the norm is NaN or infinite for 1 of the 2 rows of 'a'"):
        check_finite(torch.tensor([[0.0, torch.nan], [1.0, 2.0]]), "the norm", "a", "rows")
