"""A training that had ended before is completed when its run is resumed."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from lightning_prune.cli.training_end import TrainingEnd
from tests.callbacks.classifiers import Classifier, trainer


class Count(pl.Callback):
    def __init__(self) -> None:
        self.ends = 0

    def on_train_end(self, *args: Any) -> None:
        self.ends += 1


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_metrics_and_hooks_of_a_training_that_had_ended(tmp_path: Path):
    end, count = TrainingEnd(), Count()
    run = trainer(tmp_path, [end, count], 1)
    run.fit(Classifier())
    accuracy = float(run.callback_metrics["val/accuracy"])
    end.complete(run, run.lightning_module)
    assert (end.metrics, count.ends) == ({"val/accuracy": accuracy}, 1)
    run.save_checkpoint(tmp_path / "last.ckpt")

    later, count = TrainingEnd(), Count()
    again = trainer(tmp_path, [later, count], 1)
    again.fit(Classifier(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert not again.callback_metrics
    assert count.ends == 0, "what Lightning leaves out"
    later.complete(again, again.lightning_module)
    assert (later.metrics, count.ends) == ({"val/accuracy": accuracy}, 1)
