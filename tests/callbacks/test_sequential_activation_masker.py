import warnings
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.sequential_activation_masker import SequentialActivationMasker
from lightning_prune.functional.selection.moments import class_moments
from lightning_prune.functional.selection.selection import select_channels
from lightning_prune.functional.selection.separability import separability_matrix
from lightning_prune.policies.criteria.fisher import Fisher
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.criteria.magnitude import Magnitude
from lightning_prune.policies.criteria.reconstruction import Reconstruction
from lightning_prune.policies.criteria.separability import Separability
from lightning_prune.policies.layers.widest_layers import WidestLayers
from lightning_prune.surgery.architecture import is_tracked
from tests.callbacks.classifiers import (
    CLASSES,
    GROUPS,
    Classifier,
    Foreign,
    ManualClassifier,
    masker,
    patterns,
    trainer,
)
from tests.plain_stages import plain


class Watch(pl.Callback):
    """Notes after every batch which planned weights are not zero, read by plain indexing."""

    def __init__(self, stage: SequentialActivationMasker) -> None:
        self.stage = stage
        self.masked_batches = 0
        self.alive: list[str] = []
        self.decided: list[int] = []
        self.finished: list[bool] = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        net, plan = pl_module.net, self.stage.plan
        if not plan:
            return
        self.masked_batches += 1
        gone = {name: plan.removed(name) for name in plan.keep}
        # Rows of the producers, their norms, and the columns of whoever reads them.
        zero = []
        if GROUPS[0] in gone:
            rows = gone[GROUPS[0]]
            for block in (net.stem, net.outer):
                zero += [block[0].weight[rows], block[1].weight[rows], block[1].bias[rows]]
            zero += [net.inner[0].weight[:, rows], net.deep[0].weight[:, rows]]
        if GROUPS[2] in gone:
            rows = gone[GROUPS[2]]
            zero += [net.deep[0].weight[rows], net.deep[1].bias[rows], net.head.weight[:, rows]]
        self.alive += [str(tuple(values.shape)) for values in zero if bool(values.any())]

    def on_train_epoch_end(self, trainer, pl_module):
        self.decided.append(len(self.stage.decisions))
        self.finished.append(self.stage.finished)


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (lambda: Classifier("sgd"), {}),
        (lambda: Classifier("adamw"), {}),
        (lambda: Classifier("sgd"), {"accumulate_grad_batches": 4}),
        (lambda: Classifier("adamw"), {"gradient_clip_val": 0.1}),
        (ManualClassifier, {}),
    ],
    ids=["sgd", "adamw", "accumulated", "clipped", "manual"],
)
def test_masked_channels_stay_zero_while_the_others_train(module, options, tmp_path):
    stage = masker(start_epoch=1)
    watch, model = Watch(stage), module()
    trainer(tmp_path, [stage, watch], 3, **options).fit(model)
    assert watch.masked_batches == 12
    assert watch.alive == []
    kept = stage.plan.keep["net.stem.0"]
    fresh = module()
    assert bool((model.net.stem[0].weight != fresh.net.stem[0].weight)[kept].all())


def test_decisions_follow_the_schedule(tmp_path):
    stage = masker(start_epoch=1, layers_per_step=1, epochs_per_step=2, hold_epochs=1)
    watch = Watch(stage)
    trainer(tmp_path, [stage, watch], 8, limit_train_batches=2).fit(Classifier())
    assert watch.decided == [0, 1, 1, 2, 2, 3, 3, 3]
    assert watch.finished == [False] * 6 + [True, True]
    assert tuple(d.group for d in stage.decisions) == GROUPS
    assert watch.alive == []


class Oracle(pl.Callback):
    """Selects the channels of a layer by itself at the start of an epoch: the nine steps."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.keep: torch.Tensor | None = None

    @torch.no_grad()
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch != self.epoch:
            return
        images, label = patterns(96, 1).tensors
        pl_module.eval()
        raw = pl_module.net.inner[0](pl_module.net.stem(images)).mean((2, 3))
        right = pl_module(images).argmax(1) == label
        pl_module.train()
        moments = class_moments(raw[right], label[right], 4)
        self.keep = select_channels(
            separability_matrix(moments.mean, moments.variance, moments.count),
            pl_module.net.inner[0].weight.flatten(1).abs().sum(1),
            embedding="pca",
            keep_range=(0.25, 0.5),
        ).keep


def test_each_layer_is_judged_with_the_earlier_ones_masked(tmp_path):
    stage = masker(start_epoch=2, layers_per_step=1, hold_epochs=1, matching="detected")
    # The oracle comes first: it sees the model as the masker will at its second layer.
    oracle = Oracle(3)
    trainer(tmp_path, [oracle, stage], 6).fit(Classifier())
    second = stage.decisions[1]
    assert second.group == "net.inner.0"
    assert second.keep.tolist() == oracle.keep.tolist()


def test_without_an_example_the_first_batch_is_traced(tmp_path):
    stage = masker()
    trainer(tmp_path, [stage], 2, limit_train_batches=1).fit(Classifier(example=False))
    assert tuple(d.group for d in stage.decisions) == GROUPS


def test_layers_by_name_rule_and_criterion(tmp_path):
    named = masker(layers=["*.deep.*"])
    trainer(tmp_path, [named], 2, limit_train_batches=1).fit(Classifier())
    assert [d.group for d in named.decisions] == ["net.deep.0"]
    ruled = masker(layers=WidestLayers(2, depth=2), criterion=Magnitude())
    model = Classifier()
    before = model.net.deep[0].weight.detach().flatten(1).abs().sum(1)
    trainer(tmp_path, [ruled], 2, limit_train_batches=1).fit(model)
    assert [d.group for d in ruled.decisions] == ["net.inner.0", "net.deep.0"]
    width = len(ruled.decisions[1].keep)
    assert (
        ruled.decisions[1].keep.tolist()
        == before.argsort(descending=True)[:width].sort()[0].tolist()
    )


@pytest.mark.filterwarnings("ignore:.*(is after the last epoch|masked nothing)")
def test_random_state_and_training_are_not_disturbed(tmp_path):
    """A masker whose time has not come leaves the run bit by bit as it was."""

    class Noisy(Classifier):
        def training_step(self, batch, batch_idx):
            return super().training_step((batch[0] + torch.randn_like(batch[0]), batch[1]), 0)

    weights = []
    for callbacks in ([], [masker(start_epoch=1, hold_epochs=0)]):
        model = Noisy(example=False)
        pl.seed_everything(3, verbose=False)
        trainer(tmp_path, callbacks, 2, max_steps=6).fit(model)
        weights.append(model.net.deep[0].weight.detach())
    assert torch.equal(*weights)


# --- warnings -----------------------------------------------------------------------------------


def test_rare_classes_are_named_once_per_run(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stage = masker(mac_target=0.4, images=16, layers_per_step=1)
        model = Classifier()
        model.collection_dataloader = lambda: torch.utils.data.DataLoader(patterns(16, 1), 16)
        trainer(tmp_path, [stage], 4, limit_train_batches=1).fit(model)
    rare = [str(w.message) for w in caught if "fewer than 10" in str(w.message)]
    assert len(rare) == 1
    assert "0 (4), 1 (4), 2 (4), 3 (4)" in rare[0]


def test_no_matched_object_falls_back_to_magnitude_at_the_upper_bound(tmp_path):
    class Wrong(Classifier):
        def object_samples(self, batch, outputs):
            from lightning_prune.observe.classifier import classifier_samples

            return classifier_samples(batch, outputs)._replace(correct=batch[1] < 0)

    stage, model = masker(layers=["net.deep.0"], matching="detected"), Wrong()
    before = model.net.deep[0].weight.detach().flatten(1).abs().sum(1)
    with pytest.warns(UserWarning) as caught:
        trainer(tmp_path, [stage], 2, limit_train_batches=1).fit(model)
    messages = [str(w.message) for w in caught]
    assert any("none of 96 objects was matched" in text for text in messages)
    assert any("net.deep.0: no object was matched" in text for text in messages)
    (decision,) = stage.decisions
    assert decision.status == "fallback"
    assert decision.keep.tolist() == before.argsort(descending=True)[:8].sort()[0].tolist()


def test_augmenting_data_are_pointed_out(tmp_path):
    class Plain(Classifier):
        collection_dataloader = None

    stage = masker()
    with pytest.warns(UserWarning, match=r"no collection_dataloader\(\)"):
        trainer(tmp_path, [stage], 2, limit_train_batches=1).fit(Plain())
    assert len(stage.decisions) == 3


# --- errors before training -------------------------------------------------------------------


def refused(tmp_path, match, stage=None, model=None, epochs=4, **options):
    model = model or Classifier()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=match):
        trainer(tmp_path, [stage or masker()], epochs, **options).fit(model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("example", [True, False])
def test_an_unknown_layer_names_its_neighbours(example, tmp_path):
    refused(tmp_path, r"net\.deeep\.0.*did you mean.*net\.deep\.0", masker(layers=["net.deeep.0"]),
            Classifier(example=example))  # fmt: skip


def test_a_layer_that_cannot_be_pruned_says_why(tmp_path):
    refused(tmp_path, "head.*reach the output", masker(layers=["net.head"]))


def test_an_unreachable_target_says_what_can_be_reached(tmp_path):
    stage = masker(mac_target=0.05, keep_range=(0.5, 0.75))
    # All widths halved: stem 1/2, inner and outer and deep 1/4, head 1/2 of their MACs.
    dense = 72 * 64 + 2 * 864 * 64 + 1152 * 16 + 64
    least = (72 * 64 + 64) / 2 + (2 * 864 * 64 + 1152 * 16) / 4
    refused(tmp_path, rf"cannot be reached.*leave {least / dense:.3f}", stage)


def test_a_schedule_that_leaves_no_epoch_for_the_cut_model(tmp_path):
    stage = masker(start_epoch=2, layers_per_step=1, hold_epochs=1)
    refused(tmp_path, r"the cut would fall on epoch 6 but max_epochs=4", stage)
    with pytest.warns(UserWarning, match=r"start_epoch=4 is after the last|masked nothing"):
        trainer(tmp_path, [masker(start_epoch=4)], 4, limit_train_batches=1).fit(Classifier())


def test_a_model_without_anything_to_prune(tmp_path):
    model = Classifier()
    model.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    refused(
        tmp_path, r"no layer of Classifier can be pruned \(net.1: .*reach the output", None, model
    )


class FakeTrainer(SimpleNamespace):
    """A Trainer that stages know weakly, as they know real ones."""

    __hash__ = object.__hash__


def test_sharding_strategies_are_refused(tmp_path):
    stage, model = masker(), Foreign()
    for kind in (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy):
        # Bare: these need devices and packages that a test machine lacks.
        fake = FakeTrainer(strategy=object.__new__(kind), callbacks=[stage])
        with pytest.raises(ValueError, match=rf"{kind.__name__} shards.*use strategy='ddp' or a"):
            stage.setup(fake, model, "fit")
        stage.setup(fake, model, "test")
    stage.setup(FakeTrainer(strategy=DDPStrategy(), callbacks=[stage]), model, "fit")


@pytest.mark.parametrize("name", ["fit", "validate", "test", "predict"])
def test_files_of_a_cut_model_load_at_every_stage(name):
    strategy, stage, model = DDPStrategy(), masker(), Foreign()
    stage.setup(FakeTrainer(strategy=strategy, callbacks=[stage]), model, name)
    assert is_tracked(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_epoch": -1}, "start_epoch=-1: pass an integer of at least 0"),
        ({"round_to": 0}, "round_to=0: pass an integer of at least 1"),
        ({"layers_per_step": 0}, "layers_per_step=0"),
        ({"epochs_per_step": 0}, "epochs_per_step=0"),
        ({"hold_epochs": -1}, "hold_epochs=-1"),
        ({"images": 0}, "images=0"),
        ({"mac_target": 1.0}, r"mac_target=1.0: pass a number in \(0, 1\)"),
        ({"mac_target": 50}, r"mac_target=50: pass a number in \(0, 1\)"),
        ({"keep_range": [0.5, 0.25]}, "0 < smallest <= largest <= 1"),
        ({"keep_range": [0.5]}, "0 < smallest <= largest <= 1"),
        ({"matching": "some"}, "matching='some': pass 'detected' or 'all'"),
        ({"background": "yes"}, "background='yes': pass true or false or 'auto'"),
        ({"layers": "backbone.*"}, "pass a list of layer names"),
        ({"layers": []}, "pass a list of layer names"),
        ({"layers": [3]}, "pass a list of layer names"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        plain(SequentialActivationMasker, **options)


def test_background_needs_a_number_of_classes(tmp_path):
    refused(tmp_path, "background=true needs num_classes", masker(background=True), epochs=2)


# --- dry run ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [None, 0.3])
def test_a_dry_run_prints_and_trains_nothing(target, tmp_path, capsys):
    stage = masker(dry_run=True, mac_target=target, start_epoch=3)
    model, run = Classifier(), trainer(tmp_path, [stage], 4, min_epochs=2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    run.fit(model)
    text = capsys.readouterr().out
    assert "nothing is masked, cut or trained" in text
    assert all(name in text for name in GROUPS)
    assert "million MACs" in text
    assert run.global_step == 0
    assert run.state.finished
    assert not stage.plan
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class RandomLabels(Classifier):
    """Learns nothing: classes are dealt out at random."""

    def __init__(self) -> None:
        super().__init__()
        self.net.head = torch.nn.Linear(16, CLASSES)

    def data(self) -> TensorDataset:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(192, 1, 8, 8, generator=generator)
        return TensorDataset(images, torch.randint(CLASSES, (192,), generator=generator))

    def train_dataloader(self):
        return DataLoader(self.data(), batch_size=96)

    collection_dataloader = train_dataloader


def test_layers_that_separate_no_better_than_random_labels_are_named(tmp_path):
    stage = masker(epochs_per_step=1, layers_per_step=2)
    with pytest.warns(UserWarning, match="at random") as caught:
        trainer(tmp_path, [stage, PhysicalPruner()], 5).fit(RandomLabels())
    told = [str(w.message) for w in caught if "at random" in str(w.message)]
    assert told[0].startswith("2 of 2 groups separate the classes no better than labels")
    assert "net.stem.0 0." in told[0]
    assert told[1].startswith("1 of 1 groups")  # one message a step
    ratios = [d.separability / d.separability_at_random for d in stage.decisions]
    # The labels are one draw more, and draws of so few channels differ by 40 % of their mean.
    assert sum(ratios) / len(ratios) == pytest.approx(1, abs=0.25)
    for decision in stage.decisions:
        assert decision.noise
        assert decision.status == "pruned"
        assert decision.reason.startswith("separability no better than that of random labels")


def test_layers_that_tell_the_classes_apart_are_not_noise(tmp_path):
    stage = masker(start_epoch=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*at random")
        trainer(tmp_path, [stage, PhysicalPruner()], 3).fit(Classifier())
    for decision in stage.decisions:
        assert not decision.noise
        assert decision.separability > 1.5 * decision.separability_at_random
    # The baselines look at no activations, and are not compared.
    other = masker(criterion=Magnitude())
    trainer(tmp_path, [other, PhysicalPruner()], 3).fit(Classifier())
    assert {decision.separability for decision in other.decisions} == {None}


# --- counts and noise -----------------------------------------------------------------------


def test_where_all_is_noise_the_norm_chooses_and_one_message_says_so(tmp_path, caplog):
    stage = masker(layers_per_step=2, mac_target=0.5, noise_criterion=GroupNorm(), count="distinct")
    with caplog.at_level("INFO"), warnings.catch_warnings():
        warnings.filterwarnings("error", ".*at random")  # of clusters' choices
        warnings.filterwarnings("error", ".*random labels")  # it was asked for
        trainer(tmp_path, [stage, PhysicalPruner()], 5).fit(RandomLabels())
    told = [text for text in caplog.messages if "random labels" in text]
    assert "net.stem.0, net.inner.0: separability no better than that of random labels" in told[0]
    assert told[0].endswith("chosen by GroupNorm at the planned width (2 of 2 groups)")
    for decision in stage.decisions:
        assert (decision.noise, decision.status) == (True, "fallback")
        assert decision.count <= 2


def test_without_a_target_a_layer_keeps_as_many_channels_as_it_has_profiles(tmp_path):
    stage = masker(start_epoch=2, mac_target=None, keep_range=None, count="distinct")
    trainer(tmp_path, [stage, PhysicalPruner()], 4).fit(Classifier())
    for decision in stage.decisions:
        assert not decision.noise
        assert (len(decision.keep), decision.bound) == (decision.count, "count")
        assert 1 <= decision.count <= decision.channels


def test_a_dry_run_measures_losses_too(tmp_path, capsys):
    stage = masker(dry_run=True, criterion=Reconstruction(), mac_target=0.6)
    trainer(tmp_path, [stage, PhysicalPruner()], 5).fit(Classifier())
    assert "net.inner.0" in capsys.readouterr().out


def test_a_dry_run_counts_too(tmp_path, capsys):
    stage = masker(dry_run=True, count="distinct", mac_target=0.6)
    trainer(tmp_path, [stage, PhysicalPruner()], 3).fit(Classifier())
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if line.startswith("group"))
    assert head.split() == ["group", "before", "after", "knee", "profiles", "set", "by"]
    row = next(line for line in lines if line.startswith("net.deep.0")).split()
    assert 1 <= int(row[4]) <= 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": "null"}, "count='null': pass 'knee' or 'distinct'"),
        ({"noise_criterion": Fisher()}, "noise_criterion: Fisher needs gradients of the loss"),
        ({"noise_criterion": Separability()}, "Separability needs clusters of channels .* weights"),
    ],
)
def test_wrong_counts_and_criteria_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        masker(**options)
