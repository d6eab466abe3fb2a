"""What a run says it is going to do, before it does."""

from pathlib import Path

import lightning as L
import pytest

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.channel_regularizer import ChannelRegularizer
from lightning_prune.callbacks.channel_resetter import ChannelResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.sequential_activation_masker import SequentialActivationMasker
from lightning_prune.callbacks.slice_masker import SliceMasker
from lightning_prune.cli.run_plan import RunPlan
from tests.callbacks.classifiers import Classifier
from tests.plain_stages import plain


class Own(L.Callback):
    """A stage that nobody here has heard of."""

    def calendar(self, pl_module, cuts):
        return f"acts on {type(pl_module).__name__}, {cuts=}"


FEW = {"layers": ["net.deep.0"], "round_to": 1}


def said(folder: Path, capsys: pytest.CaptureFixture[str], *stages: L.Callback) -> list[str]:
    class Stop(L.Callback):
        def on_train_start(self, trainer, pl_module):
            trainer.should_stop = True
            raise KeyboardInterrupt

    plan = RunPlan()
    trainer = L.Trainer(
        max_epochs=9, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[*stages, plan, Stop()], num_sanity_val_steps=0,
    )  # fmt: skip
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer.fit(Classifier())
    return [line for line in capsys.readouterr().out.splitlines() if ": " in line]


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
    assert lines[0].startswith("model: Classifier, ")
    assert lines[1].startswith("data: 96 samples to train on, in ")
    assert lines[2] == "epochs: 9"
    assert sorted(lines[3:]) == [
        "ChannelMasker: layers are masked in epochs 3 to 5; cut at the start of epoch "
        "6 at the latest",
        "ChannelRegularizer: channels are regularized in epochs 1 to 4",
    ]


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
        lines[3].replace(" until 90% of the MACs remain", "")
    )
    assert lines[4] == (
        "ChannelResetter: channels are reset at the start of epoch 4, then every 3 epochs"
    )
    slices = SliceMasker(start_epoch=4, end_epoch=6, block_size=2, pruning_ratio=0.5)
    own = said(tmp_path, capsys, Own(), PhysicalPruner())[3:]
    assert own == ["Own: acts on Classifier, cuts=True"]
    assert said(tmp_path, capsys, slices)[3] == ("SliceMasker: slices are masked from epoch 5 on")
