"""Callbacks of Lightning that a resume cannot continue are named before training."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging

from lightning_prune.callbacks.exact_resume import ExactResume
from tests.callbacks.classifiers import Classifier, trainer


@pytest.mark.parametrize(
    "callback", [StochasticWeightAveraging(0.01), GradientAccumulationScheduler({1: 2})]
)
def test_what_lightning_does_not_keep_is_said(callback: Any, tmp_path: Path) -> None:
    run = trainer(tmp_path, [callback, ExactResume()], 2, limit_train_batches=1)
    said = f"{type(callback).__name__}: Lightning does not keep .*at the end of an epoch"
    with pytest.warns(UserWarning, match=said):
        run.fit(Classifier())
