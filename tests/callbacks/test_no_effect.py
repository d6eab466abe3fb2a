"""A stage that does nothing says so in one sentence: why, and what to do."""

import re

import pytest

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.channel_regularizer import ChannelRegularizer
from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.callbacks.slice_masker import SliceMasker
from lightning_prune.callbacks.slice_regularizer import SliceRegularizer
from lightning_prune.policies.layers.widest_layers import WidestLayers
from tests.callbacks.classifiers import Classifier, masker, trainer
from tests.plain_stages import plain

LATE = r"start_epoch=5 is after the last epoch \(max_epochs=2\)"


def slices(**options):
    return SliceMasker(**{"block_size": 4, "start_epoch": 0, "end_epoch": 1} | options)


CASES = {
    "sequential, late": (
        lambda: masker(start_epoch=5),
        LATE + ": nothing will be pruned",
    ),
    "sequential, round_to": (
        lambda: masker(round_to=16, hold_epochs=0),
        "SequentialActivationMasker has no effect: of each selected layer, such as: 8 channels "
        "with round_to=16 leave no choice; lower round_to",
    ),
    "channel, late": (
        lambda: plain(ChannelMasker, 5, 6),
        LATE + ": nothing will be pruned",
    ),
    "channel, round_to": (
        lambda: plain(ChannelMasker, 0, 1, pruning_ratio=0.5, round_to=16, hold_epochs=0),
        r"ChannelMasker has no effect: none of the 3 layers \(16 channels at most\) has a narrower "
        r"width with round_to=16 and keep_range=\(0\.1, 1\); lower round_to",
    ),
    "channel, keep_range": (
        lambda: plain(
            ChannelMasker, 0, 1, pruning_ratio=0.5, keep_range=(0.99, 1.0), hold_epochs=0
        ),
        r"and keep_range=\(0\.99, 1\); lower round_to or keep_range",
    ),
    "channel, pruning_ratio": (
        lambda: plain(
            ChannelMasker,
            0,
            1,
            pruning_ratio=0.2,
            round_to=4,
            layers=["net.inner.0"],
            hold_epochs=0,
        ),
        "ChannelMasker has no effect: pruning_ratio=0.2 removes no whole block of round_to=4",
    ),
    "slices, late": (lambda: slices(start_epoch=5, end_epoch=6), LATE + ": no slice"),
    "slices, pruning_ratio": (
        lambda: slices(pruning_ratio=0.001),
        "SliceMasker has no effect: pruning_ratio=0.001 zeroes no whole slice of block_size=4",
    ),
    "slices, unprune": (
        lambda: slices(mode="unprune"),
        r"SliceMasker\(mode='unprune'\) has no effect: nothing is masked; resume",
    ),
    "channel regularizer, strength": (
        lambda: ChannelRegularizer(reg=0.0, histograms=False),
        "ChannelRegularizer has no effect: reg=0.0",
    ),
    "channel regularizer, late": (
        lambda: ChannelRegularizer(start_epoch=5, histograms=False),
        "ChannelRegularizer has no effect: " + LATE,
    ),
    "slice regularizer, strength": (
        lambda: SliceRegularizer(reg=0.0, block_size=4),
        "SliceRegularizer has no effect: reg=0.0",
    ),
    "slice regularizer, late": (
        lambda: SliceRegularizer(start_epoch=5, block_size=4),
        "SliceRegularizer has no effect: .*start_epoch=5, max_epochs=2",
    ),
    "pruner": (
        lambda: PhysicalPruner(),
        "PhysicalPruner has nothing to cut: no callback in the list holds a plan; add a masker",
    ),
    "resetter, no cut": (
        lambda: OptimizerResetter(),
        "OptimizerResetter has no effect: this run ended without a cut",
    ),
    "resetter, all off": (
        lambda: OptimizerResetter(clear_statistics=False, restart_lr=False),
        "OptimizerResetter has no effect: clear_statistics, rebuild and restart_lr are all false",
    ),
    "report": (
        lambda: PruningReport(show=False, figures=False),
        "PruningReport has no effect: nothing was pruned and no file is written",
    ),
}


@pytest.mark.filterwarnings("ignore:OptimizerResetter has no effect. this run ended without")
@pytest.mark.parametrize("name", CASES)
def test_it_is_said(name, tmp_path):
    make, message = CASES[name]
    late = f"({message})|masked nothing: training ended after 2 epochs, and masks begin with start"
    with pytest.warns(UserWarning, match=late if "late" in name else message) as told:
        trainer(tmp_path, [make()], 2, limit_train_batches=1).fit(Classifier())
    assert any(re.search(message, str(w.message)) for w in told)
    masks = name.split(",")[0] in ("sequential", "channel", "slices")
    assert any("masked nothing" in str(w.message) for w in told) == ("late" in name and masks)
    assert sum("no effect" in str(w.message) or "is after" in str(w.message) for w in told) <= 2


ERRORS = {
    "no such layer": (lambda: plain(ChannelMasker, 0, 1, layers=["nett.*"]), "layers: "),
    "no layer": (lambda: masker(layers=[]), r"layers=\[\]: pass a list"),
    "no epoch of masking": (lambda: plain(ChannelMasker, 2, 2), "end_epoch=2 leaves no epoch"),
    "no epoch of slices": (lambda: slices(start_epoch=2, end_epoch=2), "end_epoch=2 leaves no"),
    "no epoch of a penalty": (
        lambda: ChannelRegularizer(start_epoch=2, end_epoch=2),
        "end_epoch=2: pass an integer of at least 3",
    ),
    "no epoch of a slice penalty": (
        lambda: SliceRegularizer(start_epoch=2, end_epoch=1),
        "end_epoch=1: pass an integer of at least 3",
    ),
    "round_to and a target": (
        lambda: plain(ChannelMasker, 0, 1, mac_target=0.5, round_to=16, hold_epochs=0),
        "cannot be reached",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_contradicts_itself_is_refused(name, tmp_path):
    make, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, [make()], 2, limit_train_batches=1).fit(Classifier())


def test_a_resumed_run_whose_target_is_met_already(tmp_path):
    def run(target, epochs, ckpt_path=None):
        stage = plain(ChannelMasker, 0, 6, pruning_ratio=0.9, mac_target=target, hold_epochs=1)
        run = trainer(tmp_path, [stage], epochs, limit_train_batches=1)
        run.fit(Classifier(), ckpt_path=ckpt_path, weights_only=True)
        return stage, run

    with pytest.warns(UserWarning, match="unless mac_target=0.1 is met|before the masks could"):
        stage, first = run(0.1, 2)
    kept = {name: keep.tolist() for name, keep in stage.plan.keep.items()}
    first.save_checkpoint(tmp_path / "masked.ckpt")
    with pytest.warns(UserWarning, match=r"mac_target=0.95 .* is met already: the masks leave"):
        again, _ = run(0.95, 8, tmp_path / "masked.ckpt")
    assert {name: keep.tolist() for name, keep in again.plan.keep.items()} == kept
    assert again.finished


def test_a_run_that_cuts_has_nothing_to_say(tmp_path):
    stages = [
        plain(ChannelMasker, 0, 1, pruning_ratio=0.5, layers=WidestLayers(1), hold_epochs=0),
        PhysicalPruner(),
        OptimizerResetter(),
        PruningReport(str(tmp_path), latency_rounds=0, show=False, figures=False),
    ]
    trainer(tmp_path, stages, 2, limit_train_batches=1).fit(Classifier())
    assert (tmp_path / "pruning_report.json").is_file()


def test_a_dry_run_has_nothing_to_say(tmp_path, capsys):
    stages = [masker(dry_run=True, start_epoch=1), OptimizerResetter(), PruningReport(show=False)]
    trainer(tmp_path, stages, 4).fit(Classifier())
    assert "MACs" in capsys.readouterr().out


SHORT = {
    "sequential": lambda: masker(start_epoch=2),
    "channel": lambda: plain(ChannelMasker, 2, 3),
    "slices": lambda: slices(start_epoch=2, end_epoch=3),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_run_that_max_steps_ends_too_early_says_so_before_and_after(name, tmp_path):
    said = r"is after the last epoch \(max_steps=9, 2 epochs\)|masked nothing: training ended"
    with pytest.warns(UserWarning, match=said) as told:
        trainer(tmp_path, [SHORT[name]()], 20, max_steps=9).fit(Classifier())
    texts = [str(w.message) for w in told]
    assert sum("max_steps=9, 2 epochs" in text for text in texts) == 1
    assert sum("masked nothing" in text for text in texts) == 1


@pytest.mark.parametrize("name", SHORT)
def test_a_fast_dev_run_is_no_error(name, tmp_path):
    with pytest.warns(UserWarning, match="fast_dev_run ends after 1 batches of one|masked nothing"):
        trainer(tmp_path, [SHORT[name]()], 20, fast_dev_run=True).fit(Classifier())


@pytest.mark.parametrize("name", ["sequential", "channel"])
def test_a_run_that_ends_before_the_cut_says_so(name, tmp_path):
    with pytest.warns(UserWarning, match="before the masks could be cut out: the model has its"):
        trainer(tmp_path, [SHORT[name](), PhysicalPruner()], 20, max_steps=15).fit(Classifier())
