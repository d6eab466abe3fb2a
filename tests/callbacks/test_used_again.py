"""Callbacks that are used in a second fit: a new run is as with new ones, the same continues."""

import copy
import json

import pytest
import torch

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.channel_regularizer import ChannelRegularizer
from lightning_prune.callbacks.channel_resetter import ChannelResetter
from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pruned_checkpoint import PrunedCheckpoint
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.callbacks.slice_masker import SliceMasker
from lightning_prune.callbacks.slice_regularizer import SliceRegularizer
from lightning_prune.callbacks.stage import PruningStage
from tests.callbacks.classifiers import Classifier, masker, trainer
from tests.plain_stages import plain

RECIPES = {
    "channels": lambda: [
        ChannelRegularizer(1e-3),
        plain(ChannelMasker, start_epoch=1, end_epoch=3, mac_target=0.6),
        PhysicalPruner(),
        plain(OptimizerResetter),
    ],
    "activations": lambda: [masker(start_epoch=1), PhysicalPruner(), plain(OptimizerResetter)],
    "ends masked": lambda: [
        plain(ChannelMasker, start_epoch=1, end_epoch=3, pruning_ratio=0.4, hold_epochs=1),
        SliceMasker(4, end_epoch=3, layers=["net.deep.0"], pruning_ratio=0.3),
    ],
    "slices": lambda: [SliceRegularizer(1e-4, 4), SliceMasker(4, end_epoch=3)],
    "reset": lambda: [
        ChannelResetter(2, which="used", reset_type="original", threshold=0.2, min_batches=2)
    ],
    "average": lambda: [
        masker(start_epoch=1),
        PhysicalPruner(),
        ExponentialMovingAverage(0.9, 2.0),
    ],
}
IGNORED = (
    "ignore:.*(bring no speed|could be cut out|takes all|no effect|beside ChannelMasker)",
    "ignore:.*(passes over|will replace|unless mac_target|exists and is not empty)",
)


def run(folder, stages, module=None, epochs=4):
    module = module or Classifier("adamw", "step")
    report = next((s for s in stages if isinstance(s, PruningReport)), None)
    fit = trainer(folder, stages, epochs)
    torch.manual_seed(3)
    fit.fit(module)
    content = None
    if report is not None and (folder / "pruning_report.json").exists():
        content = json.loads((folder / "pruning_report.json").read_text())
    return module, fit, content


def with_report(folder, stages):
    """The report, before callbacks that are no stages."""
    place = sum(isinstance(stage, PruningStage) for stage in stages)
    return [*stages[:place], report(folder), *stages[place:]]


def report(folder):
    return PruningReport(str(folder), latency_rounds=0, show=False, figures=False)


def equal(a, b):
    assert [n for n, _ in a.named_parameters()] == [n for n, _ in b.named_parameters()]
    for (name, one), other in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.filterwarnings(*IGNORED)
@pytest.mark.parametrize(
    ("name", "how"), [*((name, "same") for name in RECIPES), ("slices", "copy")]
)
def test_a_second_model_is_pruned_as_by_new_callbacks(name, how, tmp_path):
    """Oracle: new callbacks of the same arguments."""
    stages = with_report(tmp_path, RECIPES[name]())
    first, _, told = run(tmp_path, stages)
    second, _, told_again = run(tmp_path, copy.deepcopy(stages) if how == "copy" else stages)
    equal(first, second)
    assert told_again == told


@pytest.mark.filterwarnings(*IGNORED)
def test_the_same_model_with_a_new_trainer_is_pruned_further_with_a_warning(tmp_path):
    stages = RECIPES["channels"]()
    module, _, _ = run(tmp_path, stages)
    widths = [len(p) for p in module.parameters()]
    with pytest.warns(UserWarning, match="a model that it has cut already: the model is pruned"):
        run(tmp_path, stages, module)
    assert sum(len(p) for p in module.parameters()) < sum(widths)


@pytest.mark.filterwarnings(*IGNORED)
@pytest.mark.parametrize("name", ["channels", "activations", "average"])
@pytest.mark.parametrize("first", [2, 4])
def test_the_same_trainer_continues_its_run(name, first, tmp_path):
    """Before the cut and behind it: what is masked stays so, and is cut once."""
    stages = with_report(tmp_path, RECIPES[name]())
    pruner = next(s for s in stages if isinstance(s, PhysicalPruner))
    module = Classifier("adamw", "step")
    fit = trainer(tmp_path, stages, 4, max_steps=first * 6)
    fit.fit(module)
    masking = next(s for s in stages if hasattr(s, "plan"))
    assert pruner.done == (not masking.plan) == (first == 4)
    fit.fit_loop.max_epochs, fit.fit_loop.epoch_loop.max_steps = 7, -1
    fit.fit(module)
    assert fit.global_step == 7 * 6
    assert pruner.done
    content = json.loads((tmp_path / "pruning_report.json").read_text())
    assert content["cut"]["epoch"] == 2
    held = {id(p) for g in fit.optimizers[0].param_groups for p in g["params"]}
    assert held == {id(p) for p in module.parameters()}
    resetter = next((s for s in stages if isinstance(s, OptimizerResetter)), None)
    if resetter is not None:
        (schedule,) = (c.scheduler for c in fit.lr_scheduler_configs)
        assert schedule.last_epoch == fit.global_step - resetter._restart["step"] == 5 * 6


@pytest.mark.filterwarnings(*IGNORED)
def test_the_best_file_of_a_second_run_is_its_own(tmp_path):
    best = PrunedCheckpoint(str(tmp_path), monitor="val/accuracy")
    stages = [*RECIPES["channels"](), best]
    trainer(tmp_path, stages, 4, enable_checkpointing=True).fit(Classifier())
    assert best.pruned
    assert best.best_model_score is not None
    second = trainer(tmp_path, stages, 4, enable_checkpointing=True)
    with pytest.warns(UserWarning, match=r"will replace .*best_pruned.ckpt of the last one"):
        second.fit(Classifier())
    assert torch.load(best.best_model_path, weights_only=True)["global_step"] > 12
    third = trainer(tmp_path, stages, 1, enable_checkpointing=True)
    best.setup(third, Classifier(), "fit")
    assert (best.pruned, best.best_model_path, best.best_model_score) == (False, "", None)
    assert best.best_k_models == {}
