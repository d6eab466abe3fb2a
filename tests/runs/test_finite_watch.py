"""Weights that are NaN end the run before a good file is replaced; losses alone do not."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.channel_regularizer import ChannelRegularizer
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.slice_masker import SliceMasker
from lightning_prune.callbacks.slice_regularizer import SliceRegularizer
from lightning_prune.runs.finite_watch import FiniteWatch
from lightning_prune.runs.non_finite_weights import NonFiniteWeightsError
from tests.callbacks.classifiers import Classifier, ManualClassifier, masker, trainer
from tests.plain_stages import plain

STEPS = 6  # of an epoch
NAN = float("nan")


class Diverging(Classifier):
    """Its loss is NaN at one step, and so are all weights behind it."""

    at = STEPS + 2

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * NAN if self.trainer.global_step == self.at else loss


class Skipping(Diverging):
    """Leaves out the steps whose loss is NaN or infinite."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss)
        return loss

    def configure_gradient_clipping(self, optimizer, *_, **__):
        for parameter in self.parameters():
            parameter.grad.nan_to_num_(0.0, 0.0, 0.0)


class ManualDiverging(ManualClassifier):
    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        if self.trainer.current_epoch == 1:
            self.net.head.bias.data[1] = NAN


class Epochs(pl.Callback):
    def __init__(self):
        self.ended, self.validated = [], []

    def on_train_epoch_end(self, trainer, pl_module):
        self.ended.append(trainer.current_epoch)

    def on_validation_epoch_start(self, trainer, pl_module):
        self.validated.append(trainer.current_epoch)


def epoch_of(path):
    return torch.load(path, weights_only=True)["epoch"]


STAGES = {
    "sequential": lambda: masker(start_epoch=2),
    "channel": lambda: plain(ChannelMasker, 2, 3, pruning_ratio=0.5),
    "slice": lambda: SliceMasker(block_size=4, start_epoch=2, end_epoch=3),
    "channel regularizer": lambda: ChannelRegularizer(histograms=False),
    "slice regularizer": lambda: SliceRegularizer(block_size=4),
    "pruner": lambda: PhysicalPruner(),
}


@pytest.mark.filterwarnings("ignore:PhysicalPruner has nothing to cut")
@pytest.mark.parametrize("name", STAGES)
def test_every_stage_ends_the_run_and_keeps_the_files(name, tmp_path):
    files = [
        ModelCheckpoint(tmp_path, "last", enable_version_counter=False, save_on_exception=True),
        ModelCheckpoint(tmp_path, "best", "val/accuracy", mode="max", enable_version_counter=False),
        ModelCheckpoint(tmp_path, "steps", every_n_train_steps=1, enable_version_counter=False),
    ]
    epochs, model = Epochs(), Diverging()
    run = trainer(tmp_path, [STAGES[name](), epochs, *files], 4, enable_checkpointing=True)
    with pytest.raises(NonFiniteWeightsError) as caught:
        run.fit(model)
    # The step is found where the checkpoint of the step would be written.
    assert run.global_step == Diverging.at + 1
    text = str(caught.value)
    assert f"epoch 2, global step {Diverging.at + 1}" in text
    assert "first in weight of layer 'net.stem.0' (and " in text
    assert f"the loss was NaN or infinite first at global step {Diverging.at}. No channel" in text
    assert epochs.ended == epochs.validated == [0]
    assert (epoch_of(tmp_path / "last.ckpt"), epoch_of(tmp_path / "best.ckpt")) == (0, 0)
    for path in tmp_path.glob("*.ckpt"):
        state = torch.load(path, weights_only=True)
        assert all(bool(v.isfinite().all()) for v in state["state_dict"].values()), path
    assert torch.load(tmp_path / "steps.ckpt", weights_only=True)["global_step"] == Diverging.at


@pytest.mark.parametrize("interval", [1.0, 0.5])
def test_without_step_checkpoints_it_ends_before_the_next_validation(interval, tmp_path):
    epochs = Epochs()
    watched = [masker(start_epoch=2), epochs, ModelCheckpoint(tmp_path, "last")]
    run = trainer(tmp_path, watched, 4, enable_checkpointing=True, val_check_interval=interval)
    with pytest.raises(NonFiniteWeightsError, match=f"first at global step {Diverging.at}. No"):
        run.fit(Diverging())
    assert epochs.ended == [0]
    assert epochs.validated == [0] * int(1 / interval)
    assert run.global_step == (9 if interval == 0.5 else 12)


def test_an_exception_on_the_way_overwrites_nothing(tmp_path):
    class Broken(Diverging):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if self.trainer.global_step == self.at + 2:
                raise RuntimeError("a disk fell out")

    class BreaksOff(Classifier):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            raise RuntimeError("a disk fell out")

    options = {"enable_version_counter": False, "save_on_exception": True}
    last = ModelCheckpoint(tmp_path, "last", **options)
    run = trainer(tmp_path, [masker(start_epoch=2), last], 4, enable_checkpointing=True)
    with pytest.raises(RuntimeError, match="a disk fell out"):
        run.fit(Broken())
    assert epoch_of(tmp_path / "last.ckpt") == 0
    # Beside finite weights it is saved as ever.
    run = trainer(
        tmp_path, [ModelCheckpoint(tmp_path / "good", **options)], enable_checkpointing=True
    )
    with pytest.raises(RuntimeError, match="a disk fell out"):
        run.fit(BreaksOff())
    assert len(list((tmp_path / "good").glob("*.ckpt"))) == 1


def test_a_module_that_leaves_such_steps_out_is_warned_once_and_goes_on(tmp_path):
    class Twice(Skipping):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * NAN if self.trainer.global_step in (9, 20) else loss

    stages, model = [masker(start_epoch=2), PhysicalPruner()], Twice()
    with pytest.warns(UserWarning) as told:
        trainer(tmp_path, stages, 4).fit(model)
    texts = [str(w.message) for w in told if "the loss was" in str(w.message)]
    assert len(texts) == 1
    assert "in 2 of the batches of epoch 2, first at global step 8; all weights" in texts[0]
    assert stages[1].done


def test_steps_that_the_scaler_leaves_out_are_no_fault(tmp_path):
    class Overflowing(Classifier):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * float("inf") if batch_idx == 3 else loss

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    stages = [masker(start_epoch=1), PhysicalPruner()]
    trainer(tmp_path, stages, 3, plugins=[plugin]).fit(Overflowing())
    assert stages[1].done
    assert scaler.get_scale() == 2.0**7


def test_manual_optimization_and_losses_that_nobody_returns(tmp_path):
    run = trainer(tmp_path, [masker(start_epoch=2)], 4)
    found = "every loss noted since the last look was finite"
    with pytest.raises(NonFiniteWeightsError, match=found):
        run.fit(ManualDiverging())
    assert run.current_epoch == 1


def test_a_regularizer_that_is_too_strong(tmp_path):
    with pytest.raises(NonFiniteWeightsError, match="a weaker regularizer"):
        trainer(tmp_path, [ChannelRegularizer(reg=1e30, histograms=False)], 2).fit(Classifier())


def test_norm_statistics_count_and_other_buffers_do_not(tmp_path):
    class Spoilt(Classifier):
        def __init__(self):
            super().__init__()
            self.register_buffer("causal", torch.full((2, 2), -torch.inf))

        def training_step(self, batch, batch_idx):
            if self.trainer.current_epoch == 1:
                self.net.inner[1].running_var[3] = NAN
            return super().training_step(batch, batch_idx)

    with pytest.raises(NonFiniteWeightsError, match=r"running_var of layer 'net\.inner\.1'; every"):
        trainer(tmp_path, [masker(start_epoch=2)], 4).fit(Spoilt())


def test_infinity_from_the_start_is_meant_and_nan_is_not(tmp_path):
    class Excluded(Classifier):
        def __init__(self, value):
            super().__init__()
            bias = torch.nn.Parameter(torch.tensor([0.0, 0.0, 0.0, value]), requires_grad=False)
            self.offset = bias

    model = Excluded(-torch.inf)
    run = trainer(tmp_path, [FiniteWatch()], 1)
    run.fit(model)
    assert run.global_step == STEPS
    run = trainer(tmp_path, [FiniteWatch()], 1)
    with pytest.raises(NonFiniteWeightsError, match="offset of layer ''"):
        run.fit(Excluded(NAN))
    assert run.global_step == 0


def test_there_is_one_watch_and_it_comes_first(tmp_path):
    stages = [masker(start_epoch=1), PhysicalPruner()]
    run = trainer(tmp_path, stages, 3)
    run.fit(Classifier())
    run.fit_loop.max_epochs = 4
    run.fit(Classifier())
    kinds = [type(callback) for callback in run.callbacks]
    assert kinds[0] is FiniteWatch
    assert kinds.count(FiniteWatch) == 1


def test_it_changes_nothing_in_a_good_run(tmp_path):
    """Oracle: the weights of a run without any callback; random state included."""

    class Drawing(Classifier):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (1 + 0.1 * torch.rand(()))

    states = []
    for callbacks in ([], [FiniteWatch()]):
        pl.seed_everything(3, verbose=False)
        model = Drawing()
        trainer(tmp_path, callbacks, 2).fit(model)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
