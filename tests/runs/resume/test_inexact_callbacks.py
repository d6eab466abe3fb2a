"""Callbacks of Lightning that a resume cannot continue are named before training."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import (
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
)

from lightning_prune.runs.resume.exact_resume import ExactResume
from tests.callbacks.classifiers import Classifier, trainer


@pytest.mark.parametrize(
    "callback", [StochasticWeightAveraging(0.01), GradientAccumulationScheduler({1: 2})]
)
def test_what_lightning_does_not_keep_is_said(callback: Any, tmp_path: Path) -> None:
    run = trainer(tmp_path, [callback, ExactResume()], 2, limit_train_batches=1)
    said = f"{type(callback).__name__}: Lightning does not keep .*at the end of an epoch"
    with pytest.warns(UserWarning, match=said):
        run.fit(Classifier())


class Gathering(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Any] = []
        self.names = ["kept"]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.outputs.append(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        self.outputs.clear()


def test_lists_of_an_unfinished_epoch_are_named_at_the_resume(tmp_path: Path) -> None:
    def run(ckpt: Path | None = None) -> None:
        files = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=2, save_top_k=-1)
        ends = ModelCheckpoint(tmp_path, "end{epoch}", save_on_train_epoch_end=True, save_top_k=-1)
        fitter = trainer(tmp_path, [ExactResume(), files, ends], 2, enable_checkpointing=True)
        fitter.fit(Gathering(), ckpt_path=ckpt, weights_only=True)

    run()
    with (
        pytest.warns(UserWarning, match=r"gathered values in self\.outputs: lists are in no"),
        pytest.warns(UserWarning, match="your dataloader is not resumable"),
        pytest.warns(UserWarning, match="exists and is not empty"),
    ):
        run(tmp_path / "step=2.ckpt")
    with pytest.warns(UserWarning, match="exists and is not empty"):
        run(tmp_path / "endepoch=0.ckpt")
