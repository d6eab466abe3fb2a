"""The callback in whole runs: what keeps the format, what files hold, and that nothing changes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prune.callbacks.channels_last import ChannelsLast
from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.callbacks.optimizer_resetter import OptimizerResetter
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.runs.resume.exact_resume import ExactResume
from lightning_prune.surgery.memory_format import memory_format_of
from tests.callbacks.classifiers import Classifier, masker, trainer

EPOCHS = 5
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed from")


class Formats(pl.Callback):
    """Whether all that belongs to convolutions is in one format, at the end of every epoch."""

    def __init__(self, average: Any) -> None:
        self.average, self.found = average, []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        parts = [*pl_module.parameters(), *self.average._average_model.module.parameters()]
        for optimizer in trainer.optimizers:
            for parameter, state in optimizer.state.items():
                parts += [v for v in state.values() if v.shape == parameter.shape]
        # One input channel: the strides of both formats are the same.
        wide = [p for p in parts if p.ndim == 4 and p.shape[1] > 1]
        self.found.append({memory_format_of(p) for p in wide})


def run(
    folder: Path, *more: Any, ckpt: Path | None = None, optimizer: str = "adamw", **options: Any
):
    average = ExponentialMovingAverage(0.9, 5.0)
    stages = [masker(start_epoch=1, mac_target=0.4), PhysicalPruner(), OptimizerResetter()]
    watch = Formats(average)
    files = ModelCheckpoint(
        folder,
        "{epoch}",
        save_top_k=-1,
        save_on_train_epoch_end=True,
        auto_insert_metric_name=False,
    )
    callbacks = [*stages, average, *more, ExactResume(), watch, files]
    pl.seed_everything(0, verbose=False)
    made = trainer(folder, callbacks, EPOCHS, **{"enable_checkpointing": True, **options})
    made.fit(Classifier(optimizer), ckpt_path=ckpt, weights_only=True)
    return made.lightning_module, watch.found


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_format_is_kept_to_the_end_and_by_a_resumed_run(precision, optimizer, tmp_path):
    kind = {"precision": precision, "optimizer": optimizer}
    whole, formats = run(tmp_path / "whole", ChannelsLast(), **kind)
    assert formats == [{torch.channels_last}] * EPOCHS
    assert whole.net.deep[0].out_channels == 8
    for epoch in (1, 3):  # masked, and cut
        file = tmp_path / "whole" / f"{epoch}.ckpt"
        again, formats = run(tmp_path / str(epoch), ChannelsLast(), ckpt=file, **kind)
        assert formats == [{torch.channels_last}] * (EPOCHS - 1 - epoch)
        for name, value in whole.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name


def test_files_hold_what_they_would_hold_without_it(tmp_path):
    run(tmp_path / "last", ChannelsLast())
    _, formats = run(tmp_path / "plain")
    assert formats == [{torch.contiguous_format}] * EPOCHS
    for epoch in range(EPOCHS):
        ours, theirs = (
            torch.load(tmp_path / name / f"{epoch}.ckpt", weights_only=True)
            for name in ("last", "plain")
        )
        assert _strides(ours) == _strides(theirs)
        assert any(len(shape) == 4 for shape, _ in _strides(ours))
        if epoch == 0:  # sums of another order, which training drives apart
            for name, value in theirs["current_model_state"].items():
                found = ours["current_model_state"][name]
                torch.testing.assert_close(found, value, atol=0.01, rtol=0.01, msg=name)


@pytest.mark.parametrize("first", [True, False])
def test_a_run_may_go_on_in_the_other_format(first, tmp_path):
    whole, _ = run(tmp_path / "whole", ChannelsLast(first))
    file = tmp_path / "whole" / "3.ckpt"
    other, formats = run(tmp_path / "other", ChannelsLast(not first), ckpt=file)
    wanted = torch.contiguous_format if first else torch.channels_last
    assert formats == [{wanted}]
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, atol=0.02, rtol=0.02, msg=name)


def test_two_processes_keep_the_format_and_one_set_of_weights(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.callbacks.channels_last_on_two", str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "do not match bucket view strides" not in done.stderr
    for name, epochs in (("whole", EPOCHS), ("masked", EPOCHS - 2), ("cut", EPOCHS - 4)):
        ranks = [torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True) for rank in (0, 1)]
        whole = torch.load(tmp_path / "whole0.pt", weights_only=True)
        for rank in ranks:
            assert rank["last"]
            assert rank["epochs"] == epochs
            for key, value in whole["weights"].items():
                # Every rank has norm statistics of its own until a file is written.
                if "running" not in key:
                    assert torch.equal(rank["weights"][key], value), (name, key)


@pytest.mark.parametrize(
    ("enabled", "fast", "wanted"),
    [(True, False, True), (False, True, False), (None, True, True), (None, False, False)],
)
def test_where_it_applies(enabled, fast, wanted, tmp_path):
    model = Classifier()
    model.fast_on_cpu = fast
    trainer(tmp_path, [ChannelsLast(enabled)], 1).fit(model)
    assert (memory_format_of(model.net.deep[0].weight) == torch.channels_last) is wanted


def test_validation_alone_converts_too(tmp_path):
    model = Classifier()
    trainer(tmp_path, [ChannelsLast()], 1).validate(model, verbose=False)
    assert memory_format_of(model.net.deep[0].weight) == torch.channels_last


def test_another_type_is_refused():
    with pytest.raises((TypeError, ValueError), match="enabled"):
        ChannelsLast("yes")


def _strides(content: Any) -> list[Any]:
    if isinstance(content, torch.Tensor):
        return [(tuple(content.shape), content.stride())]
    values = content.values() if isinstance(content, dict) else content
    nested = isinstance(content, dict | list | tuple)
    return [found for value in values for found in _strides(value)] if nested else []
