"""Every checkpoint on the way loads like any other."""

import warnings

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging

from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.pruning_report import PruningReport
from lightning_prune.loading import load_pruned
from tests.callbacks.classifiers import Classifier, Foreign, masker, trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:The dirpath has changed from",
    "ignore:.*callbacks used to create the checkpoint need to be provided",
    "ignore:.*resuming from a checkpoint that ended before the epoch ended",
)
EPOCHS = 6
# Dense, first step masked, all masked, and two of the cut model.
FILES = tuple(f"epoch={epoch}.ckpt" for epoch in range(EPOCHS))


def stages(folder, average=None):
    # Epochs 1 and 2 mask two groups and one, epoch 3 holds, epoch 4 cuts.
    mask = masker(
        start_epoch=1,
        layers_per_step=2,
        hold_epochs=2,
        mac_target=0.4,
        dense_checkpoint=str(folder / "dense.ckpt"),
    )
    report = PruningReport(str(folder), latency_rounds=0, show=False, figures=False)
    files = ModelCheckpoint(
        folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True, every_n_epochs=1
    )
    averages = [] if average is None else [average()]
    return [mask, PhysicalPruner(), OptimizerResetter(), report, *averages, files]


def run(folder, model, average=None, ckpt_path=None):
    callbacks = stages(folder, average)
    run = trainer(folder, callbacks, EPOCHS, enable_checkpointing=True)
    run.fit(model, ckpt_path=ckpt_path, weights_only=True)
    return run


def ema():
    return ExponentialMovingAverage(0.9, 5.0)


KINDS = {
    "tracked": (lambda: Classifier("adamw", "step"), None),
    "foreign": (lambda: Foreign("sgd"), None),
    "averaged": (lambda: Classifier("adamw", "step"), ema),
}


@pytest.fixture(scope="module", params=KINDS)
def whole(request, tmp_path_factory):
    """An uninterrupted run: its kind, folder and final module."""
    make, average = KINDS[request.param]
    folder, model = tmp_path_factory.mktemp(request.param), make()
    run(folder, model, average)
    return make, average, folder, model


@pytest.mark.parametrize("file", FILES[:-1])
def test_a_resumed_run_ends_with_the_same_weights(file, whole, tmp_path):
    make, average, folder, model = whole
    again = make()
    resumed = run(tmp_path, again, average, folder / file)
    assert resumed.current_epoch == EPOCHS
    assert str(again.net) == str(model.net)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    for ours, theirs in zip(
        *(torch.load(place / FILES[-1], weights_only=True)["lr_schedulers"]
          for place in (folder, tmp_path)), strict=True,
    ):  # fmt: skip
        assert ours["last_epoch"] == theirs["last_epoch"]
        assert ours["_last_lr"] == theirs["_last_lr"]


def test_every_file_is_plain_data_and_loads_by_itself(whole):
    _, _, folder, model = whole
    for file in ("dense.ckpt", *FILES):
        path = folder / file
        checkpoint = torch.load(path, weights_only=True)
        kind = type(model)
        if kind is Classifier:
            loaded = kind.load_from_checkpoint(path, map_location="cpu", weights_only=True)
        else:
            loaded = load_pruned(kind, path)
        cut = file in FILES[4:]
        assert (loaded.net.deep[0].out_channels < 16) is cut
        for name, value in loaded.state_dict().items():
            assert torch.equal(value, checkpoint["state_dict"][name])
    # The last file holds what the run ended with (the average, where there is one).
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_dense_and_pruned_files_are_tested_after_the_cut(whole):
    make, average, folder, model = whole
    for file in (FILES[0], FILES[3], FILES[-1]):
        alone = load_pruned(type(model), folder / file)
        expected = plain(folder).test(alone, verbose=False)[0]["test/accuracy"]
        tester = trainer(folder, stages(folder, average), enable_checkpointing=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*loading a checkpoint outside the 'fit' stage")
            found = tester.test(make(), ckpt_path=folder / file, verbose=False)[0]
        assert found["test/accuracy"] == expected


def plain(folder):
    return trainer(folder, [])


def test_the_trainer_that_cut_tests_its_own_dense_and_best_files(tmp_path):
    model = Classifier()
    fitted = run(tmp_path, model)
    dense = fitted.test(model, ckpt_path=tmp_path / FILES[0], verbose=False)[0]
    assert model.net.deep[0].out_channels == 16
    cut = fitted.test(model, ckpt_path=tmp_path / FILES[-1], verbose=False)[0]
    assert model.net.deep[0].out_channels <= 8
    alone = [Classifier.load_from_checkpoint(tmp_path / f, weights_only=True) for f in FILES]
    for found, module in ((dense, alone[0]), (cut, alone[-1])):
        assert found == plain(tmp_path).test(module, verbose=False)[0]


def test_the_dense_checkpoint_holds_the_average_that_was_validated(tmp_path):
    model = Classifier()
    run(tmp_path, model, ema)
    dense = torch.load(tmp_path / "dense.ckpt", weights_only=True)
    before = torch.load(tmp_path / FILES[0], weights_only=True)
    assert not torch.equal(
        before["state_dict"]["net.head.weight"], before["current_model_state"]["net.head.weight"]
    )
    for name, value in before["state_dict"].items():
        assert torch.equal(dense["state_dict"][name], value)
    with pytest.raises(KeyError, match="checkpoint contains only the model"):
        run(tmp_path / "again", Classifier(), ema, tmp_path / "dense.ckpt")


@pytest.mark.filterwarnings("ignore:.*SWA is currently only supported every epoch.*")
@pytest.mark.parametrize("file", [FILES[2], FILES[4]])
def test_stochastic_weight_averaging_resumes(file, tmp_path):
    def average():
        return StochasticWeightAveraging(0.01, swa_epoch_start=2)

    first, second = Classifier(), Classifier()
    (tmp_path / "whole").mkdir()
    run(tmp_path / "whole", first, average)
    run(tmp_path / "again", second, average, tmp_path / "whole" / file)
    assert str(second.net) == str(first.net)
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, atol=1e-6, rtol=1e-5)


def test_a_resume_in_the_middle_of_an_epoch_keeps_the_masks(tmp_path):
    class Interrupt(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.current_epoch == 1 and batch_idx == 2:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")
                raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        trainer(tmp_path, [masker(start_epoch=1), PhysicalPruner(), Interrupt()], 4).fit(
            Classifier()
        )
    stage, model, alive = masker(start_epoch=1), Classifier(), []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if stage.plan:
                rows = stage.plan.removed("net.deep.0")
                alive.append(bool(pl_module.net.deep[0].weight[rows].any()))

    trainer(tmp_path, [stage, PhysicalPruner(), Watch()], 4).fit(
        model, ckpt_path=tmp_path / "middle.ckpt", weights_only=True
    )
    assert alive == [False] * 3
    assert model.net.deep[0].out_channels == 8
