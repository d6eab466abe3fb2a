"""What a run says it is going to do, before it does."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from hydra import compose, initialize_config_dir
from torch.utils.data import DataLoader

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.channel_regularizer import ChannelRegularizer
from lightning_prune.callbacks.channel_resetter import ChannelResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.callbacks.sequential_activation_masker import SequentialActivationMasker
from lightning_prune.callbacks.slice_masker import SliceMasker
from lightning_prune.cli.run_plan import RunPlan, aligned
from lightning_prune.engine.phase import Phase
from lightning_prune.policies.selection.fast_widths import FastWidths
from lightning_prune.runs.configuration.config_folder import config_folder
from tests.callbacks.classifiers import Classifier
from tests.plain_stages import plain


class Own(L.Callback):
    """A stage that nobody here has heard of."""

    def calendar(self, pl_module, cuts):
        return f"acts on {type(pl_module).__name__}, {cuts=}"


class TwoLoaders(Classifier):
    """Validates on two sets of 32 samples, one of them in several batches."""

    def val_dataloader(self):
        whole = super().val_dataloader()
        return [whole, DataLoader(whole.dataset, batch_size=8)]

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx)


FEW = {"layers": ["net.deep.0"], "round_to": 1}


def said(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    *stages: L.Callback,
    model: L.LightningModule | None = None,
    target: Mapping[str, Any] | None = None,
    **options: int,
) -> list[str]:
    class Stop(L.Callback):
        def on_train_start(self, trainer, pl_module):
            trainer.should_stop = True
            raise KeyboardInterrupt

    plan = RunPlan("some/folder", target)
    trainer = L.Trainer(
        max_epochs=9, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[*stages, plan, Stop()], num_sanity_val_steps=0,
        **options,
    )  # fmt: skip
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer.fit(model or Classifier())
    return capsys.readouterr().out.splitlines()


@pytest.mark.filterwarnings("ignore")
def test_epochs_of_masks_and_cut_are_counted_from_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    masker = plain(
        ChannelMasker,
        start_epoch=2,
        end_epoch=5,
        pruning_ratio=0.5,
        mac_target=None,
        hold_epochs=1,
        **FEW,
    )
    lines = said(tmp_path, capsys, ChannelRegularizer(0.1, end_epoch=4), masker, PhysicalPruner())
    assert lines[0].startswith("model     Classifier, ")
    assert re.fullmatch(
        r"data      96 samples to train on, in \d+ batches an epoch, \d+ to validate on", lines[1]
    )
    assert re.fullmatch(r"machine   cpu, 32 bits, \d+ threads?(, seed \d+)?", lines[2])
    assert lines[3:5] == ["output    some/folder", "epochs    9"]
    assert sorted(lines[5:7]) == [
        "          ChannelMasker: layers are masked in epochs 3 to 5; cut at the start of epoch "
        "6 at the latest",
        "          ChannelRegularizer: channels are regularized in epochs 1 to 4",
    ]


@pytest.mark.filterwarnings("ignore")
def test_of_a_loader_that_is_not_used_in_full_batches_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    few = {"limit_train_batches": 2}
    two = TwoLoaders()
    lines = said(tmp_path, capsys, model=two, **few)
    assert lines[1] == "data      2 batches an epoch, 64 to validate on"
    lines = said(tmp_path, capsys, model=two, limit_val_batches=1, **few)
    assert lines[1] == "data      2 batches an epoch, 2 batches to validate on"
    lines = said(tmp_path, capsys, limit_val_batches=0, **few)
    assert lines[1] == "data      2 batches an epoch"


@pytest.mark.filterwarnings("ignore")
def test_a_run_resumed_behind_the_cut_plans_no_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    masker = plain(ChannelMasker, start_epoch=2, end_epoch=5, pruning_ratio=0.5, mac_target=None,
                   hold_epochs=1, **FEW)  # fmt: skip
    masker._state = replace(masker._state, phase=Phase.CUT)
    planned = {
        None: [],
        4: ["          ChannelRegularizer: channels are regularized in epochs 1 to 4"],
    }
    for end, expected in planned.items():  # without an end the cut is its end
        regularizer = ChannelRegularizer(0.1, end_epoch=end)
        regularizer.load_state_dict({"cut": True})
        assert said(tmp_path, capsys, masker, regularizer, PhysicalPruner())[5:] == expected


@pytest.mark.filterwarnings("ignore")
def test_other_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sequential = plain(
        SequentialActivationMasker,
        start_epoch=1,
        layers=["net.deep.0"],
        mac_target=0.9,
        hold_epochs=2,
    )
    resetter = ChannelResetter(every_n_epochs=3)
    lines = said(tmp_path, capsys, sequential, resetter)
    assert "SequentialActivationMasker: layers are masked at the start of epoch 2" in (
        lines[5].replace(" until 90% of the MACs remain", "")
    )
    assert lines[6] == (
        "          ChannelResetter: channels are reset at the start of epoch 4, then every 3 epochs"
    )
    slices = SliceMasker(start_epoch=4, end_epoch=6, block_size=2, pruning_ratio=0.5)
    own = said(tmp_path, capsys, Own(), PhysicalPruner())[5:6]
    assert own == ["          Own: acts on Classifier, cuts=True"]
    masked = said(tmp_path, capsys, slices)[5]
    assert masked == "          SliceMasker: slices are masked from epoch 5 on"


def test_macs_are_those_that_a_report_has_counted(tmp_path, capsys):
    report = PruningReport(str(tmp_path), latency_rounds=0, figures=False)
    model = said(tmp_path, capsys, report)[0]
    macs = report.content.dense.macs
    assert macs > 0
    assert model.endswith(f" parameters, {macs / 1e6:,.1f} million MACs")


def test_long_lines_are_wrapped_below_their_text():
    rows = [("model", "a " * 30), ("", "Masker: " + "b " * 30)]
    lines = list(aligned(rows, 40))
    assert max(map(len, lines)) <= 40
    starts = [line[:12] for line in lines]
    assert starts == ["model     a ", " " * 12, " " * 12, "          Ma", " " * 12, " " * 12]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "path", sorted(config_folder().glob("target/*.yaml")), ids=lambda p: p.stem
)
def test_a_target_sets_what_suits_it_and_is_said(path: Path, tmp_path: Path, capsys):
    words = [f"+target={path.stem}", "output_dir=x"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        recipes = ("channel", "sequential_activation", "neural")
        found = [compose("train", [f"+pruning={recipe}", *words]) for recipe in recipes]
    target = found[0].target
    assert target.name == path.stem
    for cfg in found:
        assert cfg.pruning.masker.round_to == target.round_to
        assert cfg.pruning.report.latency_runtime == target.latency_runtime
    assert found[0].pruning.masker.fast_widths.vector == target.vector
    fast = FastWidths(vector=target.vector)
    masker = plain(ChannelMasker, round_to=target.round_to, fast_widths=fast, end_epoch=5)
    lines = said(tmp_path, capsys, masker, target=target)
    line = next(line for line in lines if line.startswith("target"))
    assert lines.index(line) < next(n for n, each in enumerate(lines) if each.startswith("output"))
    words = f"widths in multiples of {target.round_to}, {target.vector} channels at once"
    assert line == f"target    {target.name}: {words} ({target.evidence})"


TARGET = {"name": "gpu_int8", "round_to": 32, "vector": 32, "evidence": "not measured"}


@pytest.mark.filterwarnings("ignore")
def test_what_a_stage_says_otherwise_is_said(tmp_path: Path, capsys):
    masker = plain(ChannelMasker, round_to=4, fast_widths=None, end_epoch=5)
    lines = said(tmp_path, capsys, masker, target=TARGET)
    assert "target    gpu_int8: widths in multiples of 4 (not measured)" in lines


def test_a_target_without_a_masker_warns(tmp_path: Path, capsys):
    with pytest.warns(UserWarning, match="target=gpu_int8 has no effect: no stage of this run"):
        said(tmp_path, capsys, target=TARGET)
