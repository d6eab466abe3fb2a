"""Early stopping and plateau schedulers across masks and cut."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_prune.callbacks.channel_masker import ChannelMasker
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.runs.resume.exact_resume import ExactResume
from tests.callbacks.classifiers import Classifier, trainer
from tests.plain_stages import plain

# What is validated in each epoch: dense in 0 and 1, masked in 2 to 4, cut from 5 on.
SCORES = (0.9, 0.8, 0.1, 0.2, 0.1, 0.3, 0.2, 0.35, 0.3, 0.3, 0.3)


class Scored(Classifier):
    """Its validation gives written scores; its rate follows them."""

    scores = SCORES
    plateau = "epoch"

    def validation_step(self, batch, batch_idx):
        self.log("val/score", self.scores[self.trainer.current_epoch])

    def training_step(self, batch, batch_idx):
        self.log("score", self.scores[self.trainer.current_epoch])
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.01)
        patience = 1 if self.plateau == "epoch" else 6
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode="max", factor=0.5, patience=patience
        )
        monitor = "val/score" if self.plateau == "epoch" else "score"
        config = {"scheduler": scheduler, "monitor": monitor, "interval": self.plateau}
        return {"optimizer": optimizer, "lr_scheduler": config}


class Notes(pl.Callback):
    """At the start of each epoch: best score, checks in vain, learning rate."""

    def __init__(self, stopping):
        self.stopping, self.rows = stopping, {}

    def on_train_epoch_start(self, trainer, pl_module):
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        best, waited = float(self.stopping.best_score), self.stopping.wait_count
        self.rows[trainer.current_epoch] = (round(best, 2), waited, rate)


def stages(start=2):
    return [plain(ChannelMasker, start, start + 3, 1, 0.5, hold_epochs=1), PhysicalPruner()]


def fit(folder, model, patience=2, epochs=11, extra=(), start=2, ckpt_path=None, **options):
    stopping = EarlyStopping("val/score", mode="max", patience=patience, **options)
    notes = Notes(stopping)
    first = stages(start)
    run = trainer(
        folder,
        [*first, notes, stopping, *extra],
        epochs,
        enable_checkpointing=bool(extra),
        limit_train_batches=2,
    )
    run.fit(model, ckpt_path=ckpt_path, weights_only=True)
    return first[1], notes.rows, run


@pytest.mark.parametrize("where", [True, False])
def test_patience_rests_from_the_first_mask_to_the_cut_and_begins_anew(where, tmp_path):
    """Without it the run would end in epoch 2; with it two epochs after the best cut one."""
    pruner, rows, run = fit(tmp_path, Scored(), check_on_train_epoch_end=where)
    assert pruner.done
    inf = float("inf")
    best = {epoch: row[:2] for epoch, row in rows.items()}
    assert best == {
        0: (-inf, 0),
        1: (0.9, 0),
        2: (0.9, 1),
        3: (0.9, 1),
        4: (0.9, 1),
        5: (-inf, 0),
        6: (0.3, 0),
        7: (0.3, 1),
        8: (0.35, 0),
        9: (0.35, 1),
    }
    assert run.current_epoch == 10


def test_thresholds_rest_too(tmp_path):
    low = Scored()
    low.scores = (0.9, 0.9, 0.1, 0.1, 0.1, *[0.8] * 6)
    pruner, _, run = fit(tmp_path, low, 9, 8, divergence_threshold=0.5)
    assert (pruner.done, run.current_epoch) == (True, 8)


@pytest.mark.parametrize("plateau", ["epoch", "step"])
def test_rates_do_not_fall_because_of_masks(plateau, tmp_path):
    model = Scored()
    model.plateau = plateau
    # After the cut 0.8 is the best of the cut model, though less than the dense 0.9.
    model.scores = (0.9, 0.9, *[0.1] * 3, 0.8, 0.8, 0.8, 0.8)
    _, rows, _ = fit(tmp_path, model, 20, 9)
    rates = [rate for _, _, rate in rows.values()]
    # By steps 7 in vain, by epochs 2: of the cut epochs 6, 7 and 8 none is better than 5.
    assert rates == [0.01] * (8 if plateau == "epoch" else 9) + [0.005] * (plateau == "epoch")


@pytest.mark.parametrize("epoch", [1, 2, 4, 5, 7])
def test_resumed_runs_go_on_alike(epoch, tmp_path):
    def files(folder):
        return ModelCheckpoint(folder, "{epoch}", save_top_k=-1)

    _, whole, _ = fit(tmp_path, Scored(), extra=[ExactResume(), files(tmp_path / "files")])
    path = tmp_path / "files" / f"epoch={epoch}.ckpt"
    extra = [ExactResume(), files(tmp_path / "other")]
    with pytest.warns(UserWarning, match="The dirpath has changed"):
        pruner, rows, _ = fit(tmp_path, Scored(), extra=extra, ckpt_path=path)
    assert pruner.done
    assert rows == {number: row for number, row in whole.items() if number > epoch}


def test_a_run_that_is_stopped_before_the_first_mask_says_so(tmp_path):
    message = r"EarlyStopping\(monitor='val/score'\) ended the run in epoch 3, before the first"
    with pytest.warns(UserWarning, match=message):
        pruner, _, run = fit(tmp_path, Scored(), start=4)
    assert (pruner.done, run.current_epoch) == (False, 3)


def test_the_callback_is_free_again_after_an_error(tmp_path):
    stopping = EarlyStopping("val/score", mode="max", patience=2)

    class Broken(Scored):
        def on_train_epoch_end(self):
            if self.trainer.current_epoch == 3:
                assert "_should_skip_check" in vars(stopping)
                raise RuntimeError("a disk fell out")

    run = trainer(tmp_path, [*stages(), stopping], 8, limit_train_batches=2)
    with pytest.raises(RuntimeError, match="a disk fell out"):
        run.fit(Broken())
    assert "_should_skip_check" not in vars(stopping)
