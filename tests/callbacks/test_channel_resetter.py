"""Dead channels are found, start again and live; oracles are counts by hand and other runs."""

import copy
import os
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn
from torch.nn import functional as F

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.channel_resetter import ChannelResetter
from lightning_prune.callbacks.holding_stage import HoldingStage
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.callbacks.slice_masker import SliceMasker
from lightning_prune.callbacks.trainer.averages import averaged_copies
from lightning_prune.surgery.architecture import track_architecture
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.slice_mask import SliceMask
from tests.callbacks.classifiers import CLASSES, patterns, trainer
from tests.contract.registry import RECIPES, stages
from tests.contract.runs import fit
from tests.plain_stages import plain

REPOSITORY = Path(__file__).resolve().parents[2]
DEAD = (1, 4, 6)
WIDTHS = {"net.stem.0": 16, "net.inner.0": 24, "net.deep.0": 32}


class Rectified(pl.LightningModule):
    """ReLU layers; some channels of the second are dead from the start."""

    def __init__(self, dead: tuple[int, ...] = DEAD, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(0)
        self.stem, self.stem_norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, CLASSES)
        nn.init.constant_(self.deep.bias, 0.1)
        with torch.no_grad():
            self.deep.bias[list(dead)] = -100.0
        self.example_input_array = torch.zeros(1, 1, 8, 8)
        track_architecture(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        return self.head(F.relu(self.deep(x)).mean((2, 3)))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.hparams["lr"], momentum=0.9)

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(patterns(96, 1), batch_size=16)

    def collection_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(patterns(96, 1), batch_size=32)


def resetter(**options: Any) -> ChannelResetter:
    return ChannelResetter(**{"every_n_epochs": 1, "min_batches": 3} | options)


class Watch(pl.Callback):
    """What is used, counted by hand, and what the callbacks did to it."""

    def __init__(self, stage: ChannelResetter) -> None:
        self.stage = stage
        self.counts = torch.zeros(8, dtype=torch.int64)
        self.batches = 0
        self.before: dict[str, torch.Tensor] = {}
        self.states: list[dict[str, torch.Tensor]] = []
        self.ends: list[dict[str, torch.Tensor]] = []
        self.agree: list[bool] = []

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            self.states.append(copy.deepcopy(pl_module.state_dict()))
        with torch.no_grad():
            # Running statistics move, but a copy's do not matter.
            model = copy.deepcopy(pl_module).train()
            deep = model.deep(F.relu(model.stem_norm(model.stem(batch[0]))))
            self.counts += F.relu(deep).abs().mean((0, 2, 3)) > self.stage.threshold
        self.batches += 1

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.ends.append(copy.deepcopy(pl_module.state_dict()))
        seen = self.stage.get_channel_usage_report()["deep"]
        self.agree.append(torch.equal(seen["usage_count"], self.counts))
        self.agree.append(seen["forwards"] == self.batches)


class Hooks(pl.Callback):
    """How many forward hooks the model has, in the batches and between them."""

    def __init__(self) -> None:
        self.during: list[int] = []
        self.after: list[int] = []

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        self.during.append(sum(len(m._forward_hooks) for m in pl_module.modules()))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.after.append(sum(len(m._forward_hooks) for m in pl_module.modules()))


def test_counts_equal_those_by_hand_and_no_hook_stays(tmp_path: Path) -> None:
    stage = resetter(every_n_epochs=None)
    watch = Watch(stage)
    # First in the list: a copy of a watched model would be counted too.
    hooks = Hooks()
    trainer(tmp_path, [watch, stage, hooks], 3).fit(Rectified())
    assert watch.agree == [True] * 6
    assert hooks.during == [2] * 18
    assert hooks.after == [0] * 18
    assert watch.counts[list(DEAD)].tolist() == [0, 0, 0]
    history = stage.usage_history
    assert history["epochs"] == [0, 1, 2]
    assert history["layers"]["deep"] == {"channels": [8] * 3, "used": [5] * 3, "reset": [0] * 3}
    assert list(history["layers"]) == ["stem", "deep"]  # the head has no activation


def test_dead_channels_are_reset_and_live(tmp_path: Path) -> None:
    stage = resetter()
    watch = Watch(stage)
    run = trainer(tmp_path, [stage, watch], 3)
    run.fit(Rectified())
    before, after = watch.states[0], watch.states[1]
    changed = (before["deep.weight"] != after["deep.weight"]).flatten(1).any(1)
    assert changed[list(DEAD)].all()
    assert after["deep.bias"][list(DEAD)].abs().max() == 0
    bound = (6 / ((8 + 8) * 9)) ** 0.5
    assert after["deep.weight"][list(DEAD)].abs().max() <= bound
    row = stage.usage_history["layers"]["deep"]
    assert row["reset"] == [0, 3, 0]
    assert row["used"] == [5, 8, 8]
    assert run.callback_metrics["usage/deep"] == 1
    assert run.callback_metrics["usage/ratio"] == 1


def test_channels_die_again_where_the_momentum_is_kept(tmp_path: Path) -> None:
    """Why the optimizer's state of the rows is cleared: the same run with it, and without."""

    def run(folder: str, keep: bool) -> list[int]:
        class Push(pl.Callback):
            """Momentum that has driven the biases down, as a spike of the gradient does."""

            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                if trainer.current_epoch == 0:
                    state = trainer.optimizers[0].state
                    state[pl_module.deep.bias]["momentum_buffer"][list(DEAD)] = 50.0

        class Restore(pl.Callback):
            def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
                if keep and trainer.current_epoch == 1 and trainer.global_step == 6:
                    state = trainer.optimizers[0].state
                    state[pl_module.deep.bias]["momentum_buffer"][list(DEAD)] = 50.0

        stage = resetter(end_epoch=2)
        trainer(tmp_path / folder, [stage, Push(), Restore()], 4).fit(model := Rectified())
        assert stage.usage_history["layers"]["deep"]["reset"] == [0, 3, 0, 0]
        alive = F.relu(model.deep(F.relu(model.stem_norm(model.stem(patterns(96, 1)[:][0])))))
        return (alive.mean((0, 2, 3)) <= 1e-6).nonzero().flatten().tolist()

    assert run("cleared", keep=False) == []
    assert run("kept", keep=True) == list(DEAD)


@pytest.mark.parametrize("which", ["unused", "used", "all"])
@pytest.mark.parametrize("reset_type", ["random", "original", "zero"])
def test_which_channels_and_what_they_become(which: str, reset_type: str, tmp_path: Path) -> None:
    stage = resetter(which=which, reset_type=reset_type, end_epoch=2, layers=["deep"])
    watch = Watch(stage)
    model = Rectified()
    first = copy.deepcopy(model.state_dict())
    trainer(tmp_path, [stage, watch], 2).fit(model)
    chosen = {"unused": set(DEAD), "used": set(range(8)) - set(DEAD), "all": set(range(8))}[which]
    assert stage.usage_history["layers"]["deep"]["reset"] == [0, len(chosen)]
    before, after, rows = watch.ends[0], watch.states[1], sorted(chosen)
    if reset_type == "original":
        assert torch.equal(after["deep.weight"][rows], first["deep.weight"][rows])
        assert torch.equal(after["deep.bias"][rows], first["deep.bias"][rows])
    elif reset_type == "zero":
        assert not after["deep.weight"][rows].any()
        assert not after["deep.bias"][rows].any()
    else:
        assert (after["deep.weight"] != before["deep.weight"])[rows].flatten(1).any(1).all()
    others = sorted(set(range(8)) - chosen)
    for name in ("deep.weight", "deep.bias"):
        assert torch.equal(after[name][others], before[name][others])
    for name in ("stem.weight", "stem_norm.weight", "head.weight"):
        assert torch.equal(after[name], before[name])


# --- with the rest of a run ---------------------------------------------------------------------


def test_averages_get_the_same_rows(tmp_path: Path) -> None:
    found = []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if trainer.global_step == 6:
                (average,) = averaged_copies(trainer)
                for name in ("deep.weight", "deep.bias"):
                    ours, theirs = pl_module.state_dict()[name], average.state_dict()[name]
                    found.append((ours == theirs).reshape(8, -1).all(1))

    stages = [resetter(end_epoch=2), EMAWeightAveraging(decay=0.9), Look()]
    trainer(tmp_path, stages, 2).fit(Rectified())
    assert [same.nonzero().flatten().tolist() for same in found] == [list(DEAD)] * 2


class Held(pl.Callback):
    """Whether everything that is masked is zero at the start of every batch."""

    def __init__(self) -> None:
        self.alive: list[str] = []
        self.masked = 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        for stage in trainer.callbacks:
            run = stage._run if isinstance(stage, HoldingStage) else None
            mask = None if run is None else run.live.mask
            if isinstance(mask, ChannelMask):
                self.alive += mask.violations()
                self.masked += 1
            elif isinstance(mask, SliceMask):
                weights = dict(pl_module.named_parameters())
                gone = {name: weights[f"{name}.weight"][~k] for name, k in mask.masks.items()}
                self.alive += [name for name, values in gone.items() if values.any()]
                self.masked += 1


@pytest.mark.parametrize("first", ["masker", "resetter"])
def test_masked_channels_stay_masked_and_a_cut_carries_counts_and_originals(
    first: str, tmp_path: Path
) -> None:
    masker = plain(
        ChannelMasker, start_epoch=1, end_epoch=3, pruning_ratio=0.5, round_to=1, hold_epochs=1
    )
    stage = resetter(which="all", reset_type="original")
    held, keep = Held(), {}

    class Cut(pl.Callback):
        def on_channels_pruned(self, trainer: Any, pl_module: Any, pruned: Any) -> None:
            keep.update(pruned.plan.keep)

    pair = [masker, stage] if first == "masker" else [stage, masker]
    model = Rectified(dead=())
    origin = copy.deepcopy(model.state_dict())
    trainer(tmp_path, [*pair, PhysicalPruner(), held, Cut()], 6).fit(model)
    assert held.masked > 0
    assert held.alive == []
    widths = {name: len(index) for name, index in keep.items()}
    assert model.deep.weight.shape[:2] == (widths["deep"], widths["stem"])
    counts = stage.get_channel_usage_report()
    assert {name: len(row["usage_count"]) for name, row in counts.items()} == widths
    originals = stage.state_dict()["originals"]
    expected = origin["deep.weight"][keep["deep"]][:, keep["stem"]]
    assert torch.equal(originals["deep"]["weight"], expected)
    expected = origin["stem_norm.weight"][keep["stem"]]
    assert torch.equal(originals["stem"]["norm.weight"], expected)
    row = stage.usage_history["layers"]["deep"]
    assert row["channels"][0] == 8  # masked channels do not count
    assert row["channels"][-3:] == [widths["deep"]] * 3
    # Where the resetter acts before the masker, it resets what is masked right after.
    alive = row["channels"] if first == "masker" else [0, *row["channels"][:-1]]
    assert row["reset"] == [0, *alive[1:]]


OTHERS = [name for name in RECIPES if "reset" not in name]


@pytest.mark.parametrize("recipe", OTHERS)
def test_every_other_recipe_goes_on_beside_it(recipe: str, tmp_path: Path) -> None:
    stage, held = resetter(which="all"), Held()
    callbacks = [*stages(recipe, "classifier", tmp_path).values(), stage, held]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the recipes' own, rightly: see the contract
        run = fit(tmp_path, "classifier", callbacks)
    assert held.alive == []
    assert held.masked > 0 or recipe == "magnitude"  # it masks and cuts in one go
    row = stage.usage_history["layers"]["net.deep.0"]
    width = run.lightning_module.net.deep[0].weight.shape[0]
    assert (row["channels"][-1], row["reset"][-1]) == (width, width)
    assert any(stage.usage_history["layers"][n]["channels"][-1] < c for n, c in WIDTHS.items()) == (
        RECIPES[recipe].cuts
    )


def test_slices_stay_zero(tmp_path: Path) -> None:
    slices = SliceMasker(block_size=4, start_epoch=1, end_epoch=3, layers=["deep"])
    held, stage = Held(), resetter(which="all")
    trainer(tmp_path, [slices, stage, held], 4).fit(Rectified(dead=()))
    assert held.masked > 0
    assert held.alive == []
    assert stage.usage_history["layers"]["deep"]["reset"] == [0, 8, 8, 8]


def test_the_report_has_the_history_and_a_picture(tmp_path: Path) -> None:
    stage, report = resetter(), PruningReport(str(tmp_path), show=True)
    trainer(tmp_path, [stage, report], 3).fit(Rectified())
    assert asdict(report.content.usage) == stage.usage_history
    assert report.content.pruned.macs is None
    assert (tmp_path / "pruning_report.json").is_file()
    assert (tmp_path / "figures" / "usage.png").stat().st_size > 5000
    assert not (tmp_path / "figures" / "overview.png").exists()


# --- checkpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize("reset_type", ["random", "original"])
def test_originals_are_in_checkpoints_only_where_they_are_needed(
    reset_type: str, tmp_path: Path
) -> None:
    stage = resetter(reset_type=reset_type)
    files = [
        ModelCheckpoint(tmp_path, "full", monitor=None),
        ModelCheckpoint(tmp_path, "weights", save_weights_only=True, mode="max"),
    ]
    trainer(tmp_path, [stage, *files], 2, enable_checkpointing=True).fit(model := Rectified())
    content = torch.load(tmp_path / "full.ckpt", weights_only=True)
    state = next(s for name, s in content["callbacks"].items() if "ChannelResetter" in name)
    kept = {name: sorted(values) for name, values in state["originals"].items()}
    norm = ["norm.bias", "norm.running_mean", "norm.running_var", "norm.weight"]
    both = {"stem": [*norm, "weight"], "deep": ["bias", "weight"]}
    assert kept == (both if reset_type == "original" else {})
    assert content["state_dict"].keys() == model.state_dict().keys()
    assert "callbacks" not in torch.load(tmp_path / "weights.ckpt", weights_only=True)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_run_resets_to_the_first_values(tmp_path: Path) -> None:
    """Not to those that it finds where it continues."""

    def run(folder: str) -> pl.Trainer:
        saved = ModelCheckpoint(
            tmp_path / folder, "{epoch}", save_top_k=-1, auto_insert_metric_name=False
        )
        stages = [resetter(reset_type="original", which="all"), saved]
        return trainer(tmp_path, stages, 4, enable_checkpointing=True)

    whole, resumed = Rectified(), Rectified()
    run("run").fit(whole)
    ckpt = tmp_path / "run" / "1.ckpt"
    run("run").fit(resumed, ckpt_path=ckpt, weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


# --- what it says -------------------------------------------------------------------------------


def test_it_waits_for_enough_batches(tmp_path: Path) -> None:
    stage = resetter(min_batches=13)
    with pytest.warns(UserWarning, match=r"waits at epoch [23]: 2 of 2 layers .*fewest: "):
        trainer(tmp_path, [stage], 4).fit(Rectified())
    # The counts continue: 6 batches, 12, then 18.
    assert stage.usage_history["layers"]["deep"]["reset"] == [0, 0, 0, 3]


def test_every_nth_batch_is_tracked(tmp_path: Path) -> None:
    stage = resetter(every_n_epochs=None, every_n_batches=4)
    trainer(tmp_path, [stage], 2).fit(Rectified())
    assert stage.get_channel_usage_report()["deep"]["forwards"] == 4  # batches 0 and 4 of 6


def test_only_layers_with_little_use_are_reset(tmp_path: Path) -> None:
    stage = resetter(only_below=0.63)  # deep: 5 of 8
    trainer(tmp_path, [stage], 2).fit(Rectified())
    assert stage.usage_history["layers"]["deep"]["reset"] == [0, 3]
    stage = resetter(only_below=0.62)
    with pytest.warns(UserWarning, match="has no effect.*raise only_below=0.62"):
        trainer(tmp_path, [stage], 2).fit(Rectified())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, r"has no effect: at 2 looks .* raise threshold=0.0"),
        (
            {"threshold": 1e3, "end_epoch": 2},
            r"no channel of \w+(, \w+)* was used: lower threshold=1000",
        ),
        (
            {"which": "used"},
            r"takes all channels of \w+(, \w+)*: every one was used; raise threshold",
        ),
        ({"every_n_epochs": 3}, r"resets nothing: .* at epoch 4, .*max_epochs=3; lower every_n"),
        ({"start_epoch": 2}, "resets nothing"),
        ({"start_epoch": 3}, r"has no effect: start_epoch=3 is after .*max_epochs=3"),
    ],
    ids=[
        "all used",
        "none used",
        "used ones are all",
        "too late",
        "starts too late",
        "never starts",
    ],
)
def test_what_has_no_effect_or_a_strange_one_warns(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=message):
        trainer(tmp_path, [resetter(**options)], 3).fit(Rectified(dead=()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs=0: pass an integer of at least 1"),
        ({"which": "dead"}, "which='dead': pass 'unused', 'used' or 'all'"),
        ({"reset_type": "noise"}, "reset_type='noise': pass 'random', 'original' or 'zero'"),
        ({"threshold": -1.0}, "threshold=-1.0"),
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"min_batches": 0}, "min_batches=0"),
        ({"every_n_batches": 0}, "every_n_batches=0"),
        ({"only_below": 1.5}, r"only_below=1.5: pass a number in \(0, 1\]"),
        ({"start_epoch": 3, "end_epoch": 2}, "end_epoch=2: pass an integer of at least 3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChannelResetter(**options)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (["deap"], ValueError, "matches no convolution or linear layer: did you mean 'deep'"),
        (["stem"], ValueError, "stem cannot be reset: its weight is frozen"),
    ],
)
def test_layers_are_checked_before_training(
    layers: list[str], error: type[Exception], message: str, tmp_path: Path
) -> None:
    model = Rectified()
    model.stem.weight.requires_grad_(False)
    with pytest.raises(error, match=message):
        trainer(tmp_path, [resetter(layers=layers)], 2).fit(model)


def test_a_module_without_an_example_input(tmp_path: Path) -> None:
    model = Rectified()
    model.example_input_array = None
    stage = resetter()
    trainer(tmp_path, [stage], 2).fit(model)
    assert stage.usage_history["layers"]["deep"]["reset"] == [0, 3]


def test_hooks_are_gone_after_an_error(tmp_path: Path) -> None:
    class Fault(pl.Callback):
        def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
            raise ZeroDivisionError

    model = Rectified()
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path, [resetter(), Fault()], 2).fit(model)
    assert not any(module._forward_hooks for module in model.modules())


# --- two processes ------------------------------------------------------------------------------


def test_two_processes_count_what_one_counts(tmp_path: Path) -> None:
    """Oracle: one process with the batches of both, at a learning rate of 0."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.callbacks.resetter_on_two", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    one = torch.load(tmp_path / "one.pt", weights_only=True)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, count in one["counts"].items():
        assert torch.equal(sum(rank["own"][name] for rank in ranks), count)
        for rank in ranks:
            assert torch.equal(rank["counts"][name], count)
            assert rank["forwards"][name] == one["forwards"][name] == 12
    assert int((one["counts"]["deep"] % 12 != 0).sum()) > 0  # some are used in some batches only
    for rank in ranks:
        assert rank["history"] == one["history"]
    # What a checkpoint holds, and what a resumed run continues with.
    assert all(torch.equal(ranks[0]["saved"][n], c) for n, c in one["counts"].items())
    assert ranks[0]["resumed"] == ranks[1]["resumed"] == 24
    # After a reset both ranks have the same weights.
    assert ranks[0]["resets"] == ranks[1]["resets"]
    assert ranks[0]["resets"] > 0
    for name, value in ranks[0]["parameters"].items():
        assert torch.equal(value, ranks[1]["parameters"][name]), name
