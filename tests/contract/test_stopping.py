"""Early stopping and best files across the cut, and runs in which a stage has no effect."""

import json
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_prune.callbacks.pruned_checkpoint import PrunedCheckpoint
from tests.contract.registry import DENSE, EPOCHS, MODULES, RECIPES, stages
from tests.contract.runs import QUIET, fit, pairs

pytestmark = QUIET


@pytest.mark.contract("early stopping waits for the cut, and begins again there")
@pytest.mark.parametrize("pair", pairs())
def test_early_stopping(pair: tuple[str, str], tmp_path: Path) -> None:
    recipe, module = pair
    # A threshold that no epoch meets: only a suspended callback lets the masked epochs pass.
    never = EarlyStopping(
        MODULES[module].metric,
        mode="max",
        patience=1,
        min_delta=2.0,
        check_on_train_epoch_end=False,
    )
    run = fit(tmp_path, module, [*stages(recipe, module, tmp_path).values(), never])
    trained = run.current_epoch
    if RECIPES[recipe].cuts:
        report = json.loads((tmp_path / "pruning_report.json").read_text())
        # The first epoch after the cut is the best by definition, the second one too many.
        assert trained == min(EPOCHS, report["cut"]["epoch"] + 2)
    else:
        assert trained == DENSE + 1


@pytest.mark.contract("the fine-tuned model has a best file of its own, and the report names files")
@pytest.mark.parametrize("pair", pairs())
def test_files_of_the_fine_tuned_model(pair: tuple[str, str], tmp_path: Path) -> None:
    recipe, module = pair
    build = stages(recipe, module, tmp_path)
    metric = MODULES[module].metric
    best = ModelCheckpoint(
        tmp_path / "checkpoints", "best", monitor=metric, mode="max", enable_version_counter=False
    )
    run = fit(tmp_path, module, [*build.values(), best])
    own = [callback for callback in build.values() if isinstance(callback, PrunedCheckpoint)]
    assert len(own) == int(RECIPES[recipe].cuts)
    report = json.loads((tmp_path / "pruning_report.json").read_text())
    listed = {Path(entry["file"]).name: entry for entry in report["checkpoints"]}
    assert "best.ckpt" in listed
    kind = type(run.lightning_module)
    for name, entry in listed.items():
        path = tmp_path / "checkpoints" / name
        loaded = kind.load_from_checkpoint(path, map_location="cpu", weights_only=True)
        size = sum(p.numel() for p in loaded.parameters())
        final = sum(p.numel() for p in run.lightning_module.parameters())
        assert (size == final) is (entry["holds"] == "cut" or not RECIPES[recipe].cuts), name
    if own:
        assert listed["best_pruned.ckpt"]["holds"] == "cut"
        assert listed["dense.ckpt"]["holds"] == "dense"


@pytest.mark.contract("a stage without effect says why")
@pytest.mark.parametrize("pair", pairs())
def test_pruning_that_starts_too_late(pair: tuple[str, str], tmp_path: Path) -> None:
    recipe, module = pair
    build = stages(recipe, module, tmp_path)
    with pytest.warns(UserWarning) as found:
        fit(tmp_path, module, list(build.values()), max_epochs=DENSE)
    said = " ".join(str(warning.message) for warning in found)
    if recipe == "channel_reset":
        assert (
            f"its first reset would come at epoch 3, and end_epoch=None, max_epochs={DENSE}" in said
        )
    else:
        assert f"start_epoch={DENSE} is after the last epoch (max_epochs={DENSE})" in said


@pytest.mark.contract("a layer that does not exist ends the run before training")
@pytest.mark.parametrize("pair", pairs())
def test_an_unknown_layer(pair: tuple[str, str], tmp_path: Path) -> None:
    recipe, module = pair
    words = [f"pruning.{RECIPES[recipe].stage}.layers=[net.nowhere]"]
    build = stages(recipe, module, tmp_path, words)
    with pytest.raises(ValueError, match="nowhere"):
        fit(tmp_path, module, list(build.values()))
