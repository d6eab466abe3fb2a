"""What an epoch's line says of the stages, also where a run is resumed."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.channel_regularizer import ChannelRegularizer
from lightning_prune.callbacks.channel_resetter import ChannelResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.slice_masker import SliceMasker
from lightning_prune.cli.epoch_words import epoch_words
from tests.callbacks.classifiers import Classifier
from tests.plain_stages import plain

pytestmark = pytest.mark.filterwarnings("ignore")


class Words(L.Callback):
    def __init__(self):
        self.said = {}

    def on_train_epoch_end(self, trainer, pl_module):
        self.said[trainer.current_epoch + 1] = epoch_words(trainer)


def run(folder, stages, epochs=6, ckpt_path=None):
    torch.manual_seed(0)
    words = Words()
    files = ModelCheckpoint(
        folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True, every_n_epochs=1
    )
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, num_sanity_val_steps=0,
        callbacks=[*stages, words, files],
    )  # fmt: skip
    trainer.fit(Classifier(), ckpt_path=ckpt_path, weights_only=True)
    return words.said


def by_ratio(start=2):
    return plain(
        ChannelMasker, start_epoch=start, end_epoch=start + 1, pruning_ratio=0.5, mac_target=None,
        hold_epochs=1, round_to=1, layers=["net.deep.0"],
    )  # fmt: skip


def test_stages_of_a_run_and_of_its_resumes(tmp_path):
    def stages():
        return [ChannelRegularizer(0.1, end_epoch=4), by_ratio(), PhysicalPruner()]

    said = run(tmp_path / "whole", stages())
    masked = said[3]
    assert masked.startswith("mask to ")
    assert masked.endswith(" of MACs, regularize")
    left = int(masked.removeprefix("mask to ").partition("%")[0])
    assert 50 <= left < 100
    assert said == {
        1: "regularize", 2: "regularize", 3: masked, 4: "cut, regularize", 5: "fine-tune",
        6: "fine-tune",
    }  # fmt: skip
    for epoch in range(5):
        again = run(tmp_path / f"{epoch}", stages(), 6, tmp_path / f"whole/epoch={epoch}.ckpt")
        assert again == {number: word for number, word in said.items() if number > epoch + 1}


def test_before_the_first_mask_a_run_is_dense(tmp_path):
    said = run(tmp_path, [by_ratio(), PhysicalPruner()], epochs=5)
    assert (said[1], said[2]) == ("dense", "dense")


def test_slices_say_how_much_is_zero(tmp_path):
    masker = SliceMasker(start_epoch=1, end_epoch=2, block_size=2, pruning_ratio=0.5)
    said = run(tmp_path, [masker], epochs=3)
    assert said[1] == "dense"
    shares = masker.slice_share.values()
    assert max(shares) > 0
    assert said[3] == f"slices {masker._zero_fraction:.0%} zero"


def test_an_epoch_in_which_channels_were_reset_says_so_also_on_resume(tmp_path):
    def stages():
        return [ChannelResetter(2, end_epoch=5, which="all", min_batches=1)]

    said = run(tmp_path / "whole", stages(), epochs=6)
    assert said == {1: "dense", 2: "dense", 3: "reset", 4: "dense", 5: "reset", 6: "dense"}
    for epoch in (1, 2, 3):
        again = run(tmp_path / f"{epoch}", stages(), 6, tmp_path / f"whole/epoch={epoch}.ckpt")
        assert again == {number: word for number, word in said.items() if number > epoch + 1}


def test_an_epoch_in_which_nothing_had_to_be_reset_does_not(tmp_path):
    never = ChannelResetter(1, which="used", threshold=1e9, min_batches=1)
    assert run(tmp_path, [never], epochs=2) == {1: "dense", 2: "dense"}


def test_without_stages_there_are_no_words(tmp_path):
    assert run(tmp_path, [], epochs=1) == {1: ""}
