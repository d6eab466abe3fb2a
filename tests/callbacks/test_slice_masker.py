"""Slices are held at zero by the schedule; oracles are loops by hand and copies of the weights."""

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.callbacks.slice_masker import SliceMasker
from lightning_prune.callbacks.slice_regularizer import SliceRegularizer
from lightning_prune.callbacks.trainer.averages import averaged_copies
from lightning_prune.callbacks.trainer.optimizers import rebuild_optimizers
from tests.callbacks.classifiers import Classifier, ManualClassifier, patterns, trainer
from tests.plain_stages import plain

REPOSITORY = Path(__file__).resolve().parents[2]
CONVS = ("stem", "inner", "outer", "deep")


def slices(**options):
    return SliceMasker(**{"block_size": 4, "start_epoch": 1, "end_epoch": 4} | options)


def conv(model, name):
    return getattr(model.net, name)[0].weight


def zero_slices(weight, size=4):
    """Places of the slices of which nothing is left, found by a loop over filters."""
    apart = len(weight) // size
    return {
        (b, *place)
        for b in range(apart)
        for place in [tuple(p) for p in torch.ones(weight.shape[1:]).nonzero().tolist()]
        if all(weight[(b + a * apart, *place)] == 0 for a in range(size))
    }


class Watch(pl.Callback):
    """What is zero at the end of every batch, in the model and its averages, and what is logged."""

    def __init__(self):
        self.zeros, self.logged, self.averages = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.zeros.append(
            (trainer.current_epoch, {n: zero_slices(conv(pl_module, n)) for n in CONVS})
        )
        for average in averaged_copies(trainer):
            alike = [bool((conv(average, n)[conv(pl_module, n) == 0] == 0).all()) for n in CONVS]
            self.averages.append(all(alike))

    def on_train_end(self, trainer, pl_module):
        self.logged.append(dict(trainer.callback_metrics))


# --- schedule -----------------------------------------------------------------------------------


def test_the_schedule_is_that_of_the_vectors(golden_vectors):
    rows = json.loads((golden_vectors / "07_schedule.json").read_text())["rows"]
    seen = 0
    for row in rows:
        if row["slice_error"] is not None or row["start"] >= row["end"]:
            continue
        if row["start"] % row["epoch_rate"]:
            continue  # the reference counts epochs divisible by the rate
        window = (row["start"], row["end"], row["epoch_rate"])
        stage, epoch = SliceMasker(8, *window, pruning_ratio=row["rate"]), row["epoch"]
        expected = row["slice_pr_reference_gradual"]
        if epoch <= row["end"]:
            assert stage.acts(epoch) == row["slice_acts_reference"], row
        if stage.acts(epoch):
            assert stage.ratio(epoch) == pytest.approx(expected, abs=1e-12), row
            at_once = SliceMasker(8, *window, pruning_ratio=row["rate"], gradually=False)
            assert at_once.ratio(epoch) == row["slice_pr_reference_not_gradual"]
            seen += 1
    assert seen >= 20


@pytest.mark.parametrize("gradually", [True, False])
def test_slices_follow_the_schedule_and_stay_zero(gradually, tmp_path):
    stage = slices(pruning_ratio=0.6, epoch_rate=2, gradually=gradually)
    watch, model = Watch(), Classifier()
    average = ExponentialMovingAverage(0.9, 5.0)
    trainer(tmp_path, [stage, average, watch], 6).fit(model)
    ratios = [0, 0.3, 0.3, 0.6, 0.6, 0.6] if gradually else [0, *[0.6] * 5]
    before = {n: set() for n in CONVS}
    for epoch, zeros in watch.zeros:
        for name in CONVS:
            total = conv(model, name).numel() // 4
            assert len(zeros[name]) == math.floor(ratios[epoch] * total + 1e-9), (epoch, name)
            assert zeros[name] >= before[name]
        before = zeros
    assert len(watch.averages) == 36
    assert all(watch.averages)
    assert watch.logged[0]["slices/ratio"] == pytest.approx(0.6)
    share = sum(int((conv(model, n) == 0).sum()) for n in CONVS)
    share /= sum(conv(model, n).numel() for n in CONVS)
    assert watch.logged[0]["slices/zero_share"] == pytest.approx(share)
    assert stage.slice_share == {
        f"net.{n}.0": pytest.approx((conv(model, n) == 0).float().mean().item()) for n in CONVS
    }


def test_it_trains_like_a_loop_by_hand(tmp_path):
    """Oracle: the same steps, with whole slices zeroed by index after each."""
    model, twin = Classifier("adamw"), Classifier("adamw").net
    stages = [SliceRegularizer(1e-3, 4, start_epoch=1), slices(pruning_ratio=0.5, end_epoch=2)]
    trainer(tmp_path, stages, 3).fit(model)

    optimizer = torch.optim.AdamW(twin.parameters(), 3e-3, weight_decay=0.1)
    images, label = patterns(96, 1).tensors
    held = {}
    for epoch in range(3):
        if epoch == 1:
            for name in CONVS:
                weight = getattr(twin, name)[0].weight.detach()
                apart, flat = len(weight) // 4, weight[0].numel()
                blocks = weight.flatten(1).view(4, apart, flat)
                norms = [
                    (blocks[:, b, i].square().sum().sqrt().item(), b, i)
                    for b in range(apart)
                    for i in range(flat)
                ]
                held[name] = [(b, i) for _, b, i in sorted(norms)[: len(norms) // 2]]
                for b, i in held[name]:
                    blocks[:, b, i] = 0
        for x, y in zip(images.split(16), label.split(16), strict=True):
            optimizer.zero_grad()
            cross_entropy(twin(x), y).backward()
            if epoch >= 1:
                for name in CONVS:
                    weight = getattr(twin, name)[0].weight
                    s = weight.detach().flatten(1).view(4, len(weight) // 4, -1)
                    square = s.square().sum(0)
                    pull = torch.where(square > 0, 1e-3 * s / square.clamp(min=1e-8), 0.0)
                    weight.grad += pull.view_as(weight)
            optimizer.step()
            for name, places in held.items():
                weight = getattr(twin, name)[0].weight.detach()
                blocks = weight.flatten(1).view(4, len(weight) // 4, -1)
                for b, i in places:
                    blocks[:, b, i] = 0
    for name, value in twin.state_dict().items():
        assert torch.allclose(model.net.state_dict()[name], value, atol=1e-5), name
    assert all(len(zero_slices(conv(model, n))) == len(held[n]) for n in CONVS)


def test_manual_optimization_and_rebuilt_optimizers(tmp_path):
    class Rebuild(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                rebuild_optimizers(trainer)

    for model in (ManualClassifier(), Classifier("adamw")):
        watch = Watch()
        stages = [slices(start_epoch=0, end_epoch=1), Rebuild(), watch]
        trainer(tmp_path, stages, 4, limit_train_batches=2).fit(model)
        for _, zeros in watch.zeros:
            assert {n: len(z) for n, z in zeros.items()} == {
                n: conv(model, n).numel() // 8 for n in CONVS
            }


# --- resume -------------------------------------------------------------------------------------


def run_stages(folder, epochs=6):
    """Slices at 1, 2, 3 and 4; channels masked at 1 and 3 and cut at 4."""
    files = ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    channels = plain(
        ChannelMasker,
        1,
        4,
        2,
        pruning_ratio=0.5,
        round_to=4,
        recalibrate_images=0,
        keep_range=(0.3, 1.0),
    )
    return [
        SliceRegularizer(1e-4, 4),
        channels,
        slices(pruning_ratio=0.5),
        PhysicalPruner(),
        OptimizerResetter(),
        ExponentialMovingAverage(0.9, 5.0),
        files,
    ]


def fit(folder, model, ckpt_path=None):
    callbacks = run_stages(folder)
    run = trainer(folder, callbacks, 6, enable_checkpointing=True)
    run.fit(model, ckpt_path=ckpt_path, weights_only=True)
    return callbacks[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("whole"), Classifier("adamw", "step")
    return folder, model, fit(folder, model)


@pytest.mark.filterwarnings(
    "ignore:The dirpath has changed from",
    "ignore:.*callbacks used to create the checkpoint need to be provided",
)
@pytest.mark.parametrize("epoch", range(5))
def test_a_resumed_run_ends_with_the_same_weights_and_state(epoch, whole, tmp_path):
    folder, model, stage = whole
    again = Classifier("adamw", "step")
    resumed = fit(tmp_path, again, folder / f"epoch={epoch}.ckpt")
    assert str(again.net) == str(model.net)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    ours, theirs = resumed.state_dict(), stage.state_dict()
    for part in ("masks", "originals"):
        assert ours["originals"][part].keys() == theirs["originals"][part].keys()
        for name, value in theirs["originals"][part].items():
            assert torch.equal(ours["originals"][part][name], value), (part, name)
    assert ours["slice_share"] == theirs["slice_share"]


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
def test_a_run_resumed_within_an_epoch_holds_its_masks_from_the_first_batch(tmp_path):
    files = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=8)
    first = slices(start_epoch=1, end_epoch=2, pruning_ratio=0.25)
    trainer(tmp_path, [first, files], 2, enable_checkpointing=True).fit(Classifier())
    stage, watch = slices(start_epoch=1, end_epoch=2, pruning_ratio=0.25), Watch()
    path = tmp_path / "step=8.ckpt"  # of epoch 1, whose six batches begin after the sixth
    trainer(tmp_path, [stage, watch], 2).fit(Classifier(), ckpt_path=path, weights_only=True)
    assert [epoch for epoch, _ in watch.zeros] == [1] * 4
    for _, zeros in watch.zeros:
        assert {n: len(z) for n, z in zeros.items()} == {
            "stem": 4,
            "inner": 54,
            "outer": 54,
            "deep": 72,
        }


def test_slices_are_whole_after_the_cut(whole):
    """Slices were chosen by the layout of the filters that stay; the last look is at epoch 4."""
    _, model, stage = whole
    widths = [conv(model, n).shape[0] for n in CONVS]
    assert sum(widths) < 44
    assert all(width % 4 == 0 for width in widths)
    for name in CONVS:
        weight = conv(model, name)
        whole_slices = zero_slices(weight)
        assert len(whole_slices) == weight.numel() // 8
        assert int((weight == 0).sum()) == 4 * len(whole_slices)
        assert stage.slice_share[f"net.{name}.0"] == 4 * len(whole_slices) / weight.numel()


@pytest.mark.filterwarnings("ignore:SliceMasker.block_size=4. beside ChannelMasker")
@pytest.mark.filterwarnings("ignore:SliceRegularizer.block_size=4. beside ChannelMasker")
def test_a_cut_that_breaks_divisibility_keeps_the_masks_and_says_so(tmp_path):
    class Compare(pl.Callback):
        def on_channels_pruned(self, trainer, pl_module, pruned):
            before = {n: getattr(pruned.masked.net, n)[0].weight != 0 for n in CONVS}
            for name in CONVS:
                replaced = pruned.parameters[f"net.{name}.0.weight"]
                assert torch.equal(conv(pl_module, name) != 0, replaced.select(before[name]))
            self.masks = copy.deepcopy(stage.state_dict()["originals"]["masks"])
            self.seen = True

    channels = plain(
        ChannelMasker, 2, 3, pruning_ratio=0.4, ranking="local", hold_epochs=0, recalibrate_images=0
    )
    stage = slices(start_epoch=1, end_epoch=4, pruning_ratio=0.5)
    compare, watch, model = Compare(), Watch(), Classifier()
    callbacks = [channels, stage, PhysicalPruner(), SliceRegularizer(1e-5, 4), compare, watch]
    with pytest.warns(UserWarning, match=r"passes over net\.inner\.0, net\.deep\.0") as caught:
        trainer(tmp_path, callbacks, 6).fit(model)
    told = " ".join(str(w.message) for w in caught)
    assert all(f"{stage} passes over" in told for stage in ("SliceMasker", "SliceRegularizer"))
    assert compare.seen
    for name in CONVS:
        mask = compare.masks[f"net.{name}.0"]
        if len(mask) % 4:
            assert bool((~mask).any())
            assert torch.equal(conv(model, name) == 0, ~mask), name


def test_rounding_that_may_break_divisibility_is_pointed_out_before_training(tmp_path):
    channels = plain(ChannelMasker, 1, 2, pruning_ratio=0.3, round_to=1)
    stages = [channels, slices(), PhysicalPruner()]
    with pytest.warns(UserWarning, match=r"SliceMasker\(block_size=4\) beside .*round_to=1"):
        trainer(tmp_path, stages, 6, limit_train_batches=0).fit(Classifier())


# --- unprune ------------------------------------------------------------------------------------


class Lift(pl.Callback):
    def __init__(self, stage, names=None):
        self.stage, self.names = stage, names

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            self.dense = {n: conv(pl_module, n).detach().clone() for n in CONVS}
        if trainer.current_epoch == 2:
            self.masks = copy.deepcopy(self.stage.state_dict()["originals"]["masks"])
            self.stage.unprune(trainer, pl_module, self.names)
            self.restored = {n: conv(pl_module, n).detach().clone() for n in CONVS}
            (average,) = averaged_copies(trainer)
            self.average = {n: conv(average, n).detach().clone() for n in CONVS}


def test_unprune_restores_the_weights_and_they_train(tmp_path):
    # The mask falls before the first batch, so that the dense weights are known.
    stage, model = slices(start_epoch=0, end_epoch=1, gradually=False), Classifier()
    lift = Lift(stage)
    trainer(tmp_path, [lift, stage, ExponentialMovingAverage(0.9, 5.0)], 4).fit(model)
    for name in CONVS:
        gone = ~lift.masks[f"net.{name}.0"]
        assert bool(gone.any())
        assert torch.equal(lift.restored[name][gone], lift.dense[name][gone])
        assert torch.equal(lift.average[name][gone], lift.dense[name][gone])
        assert not torch.equal(lift.restored[name][~gone], lift.dense[name][~gone])
        assert bool((conv(model, name)[gone] != lift.dense[name][gone]).all())
    assert stage.state_dict()["originals"] is None


def test_some_layers_are_freed_and_the_others_held(tmp_path):
    stage, model = slices(start_epoch=0, end_epoch=3), Classifier()
    lift = Lift(stage, ["net.deep.0"])
    trainer(tmp_path, [lift, stage, ExponentialMovingAverage(0.9, 5.0)], 5).fit(model)
    assert not zero_slices(conv(model, "deep"))
    assert len(zero_slices(conv(model, "inner"))) == conv(model, "inner").numel() // 8
    assert stage.slice_share.keys() == {"net.stem.0", "net.inner.0", "net.outer.0"}
    again = slices(start_epoch=0, end_epoch=3)
    with pytest.raises(KeyError, match=r"no slice mask on \['net\.deap\.0'\]"):
        trainer(tmp_path, [Lift(again, ["net.deap.0"]), again, ExponentialMovingAverage()], 5).fit(
            Classifier()
        )


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
def test_the_mode_unprune_lifts_what_a_checkpoint_holds(tmp_path):
    files = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    first = slices(start_epoch=0, end_epoch=1)
    trainer(tmp_path, [first, files], 2, enable_checkpointing=True).fit(Classifier())
    stage, model = slices(mode="unprune", start_epoch=3, end_epoch=4), Classifier()
    watch = Watch()
    trainer(tmp_path, [stage, watch], 4, limit_train_batches=1).fit(
        model, ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=True
    )
    assert [len(zeros["deep"]) for _, zeros in watch.zeros] == [8 * 16 * 9 // 8, 0]
    assert watch.logged[0]["slices/zero_share"] == 0
    originals = first.state_dict()["originals"]["originals"]["net.deep.0"]
    gone = ~first.state_dict()["originals"]["masks"]["net.deep.0"]
    moved = (conv(model, "deep")[gone] - originals).abs()
    assert 0 < moved.max() < 0.1  # one step away from what they were


def test_unprune_under_a_channel_mask_leaves_the_channels_masked(tmp_path):
    channels = plain(ChannelMasker, 1, 2, pruning_ratio=0.5, round_to=4, hold_epochs=3)
    stage, watch = slices(start_epoch=0, end_epoch=1), Watch()
    rows = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.current_epoch == 2:
                gone = channels.plan.removed("net.deep.0")
                (average,) = averaged_copies(trainer)
                rows.extend([conv(m, "deep")[gone].any().item() for m in (pl_module, average)])

    average = ExponentialMovingAverage(0.9, 5.0)
    callbacks = [Lift(stage), channels, stage, PhysicalPruner(), average, Look(), watch]
    trainer(tmp_path, callbacks, 5).fit(Classifier())
    assert rows == [False] * 12


# --- what cannot work ---------------------------------------------------------------------------


def refused(tmp_path, match, stage, model=None, epochs=6):
    with pytest.raises(ValueError, match=match):
        trainer(tmp_path, [stage], epochs, limit_train_batches=1).fit(model or Classifier())


def test_layers_that_do_not_fit_are_named_before_training(tmp_path):
    expected = r"net\.inner\.0 \(12\).*layers=\['!net\.inner\.0'\]"
    refused(tmp_path, expected, slices(block_size=8))
    refused(tmp_path, expected, SliceRegularizer(1e-4, 8))
    refused(tmp_path, "did you mean", slices(layers=["net.inner.1x"]))
    trainer(
        tmp_path, [slices(block_size=8, layers=["!net.inner.0"])], 6, limit_train_batches=1
    ).fit(Classifier())


def test_a_schedule_before_or_after_the_run(tmp_path):
    files = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer(tmp_path, [files], 4, enable_checkpointing=True, limit_train_batches=1).fit(
        Classifier()
    )
    run = trainer(tmp_path, [slices(start_epoch=0, end_epoch=1)], 6)
    with (
        pytest.warns(UserWarning, match="need to be provided"),
        pytest.raises(ValueError, match="ends at epoch 2 and this run starts at epoch 5"),
    ):
        run.fit(Classifier(), ckpt_path=tmp_path / "epoch=3.ckpt", weights_only=True)
    with pytest.warns(UserWarning, match="no slice will be masked|masked nothing"):
        trainer(tmp_path, [slices()], 1, limit_train_batches=1).fit(Classifier())
    with pytest.warns(UserWarning, match=r"a ratio of 0\.33 will be reached, not 0\.50"):
        trainer(tmp_path, [slices()], 3, limit_train_batches=1).fit(Classifier())


def test_what_has_no_effect_says_so(tmp_path):
    with pytest.warns(UserWarning, match="mode='unprune'.* has no effect"):
        trainer(tmp_path, [slices(mode="unprune")], 1, limit_train_batches=1).fit(Classifier())
    stage = slices(start_epoch=3, end_epoch=4)
    callbacks = [NoMask(stage), stage]
    with pytest.warns(UserWarning, match="unprune has no effect: no slice is masked"):
        trainer(tmp_path, callbacks, 4, limit_train_batches=1).fit(Classifier())


class NoMask(pl.Callback):
    def __init__(self, stage):
        self.stage = stage

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.stage.unprune(trainer, pl_module)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 0}, "block_size=0: pass an integer of at least 1"),
        ({"pruning_ratio": 1.2}, "pruning_ratio=1.2: pass a number in"),
        ({"pruning_ratio": 0}, "the fraction that the last step removes"),
        ({"mode": "Prune"}, "pass 'prune' or 'unprune'"),
        ({"norm": 3}, "norm=3: pass 1 or 2"),
        ({"end_epoch": 0}, "end_epoch=0: pass an integer of at least 1"),
        ({"layers": []}, "pass a list of layer names"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        slices(**options)


def test_a_report_beside_it_neither_fails_nor_takes_it_for_a_channel_masker(tmp_path):
    stage = slices(start_epoch=0, end_epoch=1)
    report = PruningReport(str(tmp_path), latency_rounds=0, figures=False)
    trainer(tmp_path, [stage, report], 2, limit_train_batches=1).fit(Classifier())
    assert not hasattr(stage, "plan")


# --- several processes --------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_hold_the_same_slices(tmp_path):
    command = [sys.executable, "-m", "tests.callbacks.distributed_slices", str(tmp_path)]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "LOCAL_", "NODE_"))}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=kept | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank{n}.pt", weights_only=True) for n in (0, 1))
    assert (first["ranks"], second["ranks"]) == (2, 2)
    for name, mask in first["masks"].items():
        assert torch.equal(mask, second["masks"][name])
        assert torch.equal(first["weights"][name] == 0, ~mask)
        assert torch.equal(first["weights"][name], second["weights"][name])
        assert 0.4 < 1 - mask.float().mean() < 0.6
