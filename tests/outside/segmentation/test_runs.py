"""Runs: resumed = uninterrupted, half the MACs by two recipes, and refusals on the command line."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from lightning_prune.loading import load_pruned
from lightning_prune.vision.mask_folder import MaskFolderData
from lightning_prune.vision.segmentation_module import SegmentationModule
from tests.contract.registry import MODULES, Module
from tests.contract.runs import QUIET, differences, recorded
from tests.outside.segmentation.tiny import WORDS, tiny
from tests.overrides import TINY_WARNINGS
from tests.vision.mask_folders import write_folder

pytest.importorskip("segmentation_models_pytorch", reason="make test-segmentation installs it")


@pytest.mark.parametrize("recipe", ["channel", "sequential_activation"])
@pytest.mark.parametrize("mark", [pytest.param(None, marks=QUIET)])
def test_a_resumed_run_is_the_uninterrupted_one(
    recipe: str, mark: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "data", {"train": 10, "val": 4})

    def data(workers: int) -> MaskFolderData:
        return MaskFolderData(tmp_path / "data", image_size=32, batch_size=4, num_workers=workers)

    def make(workers: int) -> SegmentationModule:
        return tiny(scrambled=False, object_pixels=8).train()

    overrides = (
        "monitor=val/miou",
        "pruning.masker.layers=[network.decoder.blocks.0.*,network.decoder.blocks.1.*]",
        "pruning.masker.mac_target=null",
    )
    entry = Module(make, data, 3, "val/miou", overrides)
    monkeypatch.setitem(MODULES, "segmentation", entry)
    whole = recorded(tmp_path / "whole", recipe, "segmentation")
    widths = {key: value.shape for key, value in whole["weights"].items()}
    dense = {key: value.shape for key, value in make(0).state_dict().items()}
    assert any(widths[key] != shape for key, shape in dense.items()), "something was cut"
    # Within the dense epoch, under the masks, and after the cut, where other weights are there.
    for step, workers in ((2, 0), (7, 1), (16, 0)):
        folder = tmp_path / f"from{step}"
        folder.mkdir()
        shutil.copy(tmp_path / "whole" / "metrics.csv", folder)
        file = tmp_path / "whole" / "batch" / f"{step}.ckpt"
        found = recorded(folder, recipe, "segmentation", file, workers)
        assert differences(whole, found) == []


def report(folder: Path) -> dict:
    return json.loads((folder / "pruning_report.json").read_text())


@pytest.mark.filterwarnings(*TINY_WARNINGS)
@pytest.mark.parametrize(
    "words",
    [
        ["+pruning=channel"],
        ["+pruning=sequential_activation", "pruning.masker.clusterer.embedding=pca"],
        ["+pruning=channel", "criterion=separability"],
    ],
    ids=["channel", "sequential_activation", "separability"],
)
def test_a_command_prunes_to_half_the_macs(words: list[str], cli, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", {"train": 16, "val": 4, "test": 4})
    quick = ["dense_epochs=3", "recovery_epochs=6", "model.lr=0.01", "pruning.report.figures=false"]
    outcome = cli(*WORDS, f"data.root={root}", *quick, *words)
    assert outcome.code == 0, outcome.err
    assert "val/miou" in outcome.out
    assert "test/miou" in outcome.out
    found = report(outcome.folder)
    assert found["pruned"]["macs"] <= 0.51 * found["dense"]["macs"]
    best = next((outcome.folder / "checkpoints").glob("*.ckpt"))
    module = load_pruned(SegmentationModule, outcome.folder / "checkpoints" / "last.ckpt").eval()
    assert module(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)
    assert best.is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.name=Unett"], "model: name='Unett' is not known to segmentation_models_pytorch"),
        (["model.encoder=resnet19"], "did you mean resnet18"),
        (["data.image_size=40"], "data.image_size=40: pass a multiple of 32"),
        (["data.root=absent"], "data root absent does not exist"),
        (["model.num_classes=7"], "names has 3 entries, num_classes is 7: pass one name per class"),
    ],
)
def test_refusals_are_one_message(words: list[str], message: str, cli, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    outcome = cli(*WORDS, f"data.root={root}", "dense_epochs=1", *words)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_data_without_masks_are_refused_before_training(cli) -> None:
    words = [w for w in WORDS if w not in ("data=mask_folder", "trainer.num_sanity_val_steps=0")]
    few = ["data.train_images=8", "data.val_images=4", "data.test_images=4", "dense_epochs=1"]
    outcome = cli(*words, "data=digits", *few)
    assert outcome.code == 2
    assert "the data give no masks: a batch must be" in outcome.err
    assert "Traceback" not in outcome.err
