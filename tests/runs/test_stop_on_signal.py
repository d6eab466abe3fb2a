"""Signals end a run where it can continue as if nothing had happened."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from torch.utils.data import DataLoader

from lightning_prune.callbacks.exponential_moving_average import ExponentialMovingAverage
from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.runs.stop_on_signal import StopOnSignal
from tests.callbacks.classifiers import Classifier, ManualClassifier, masker, patterns, trainer

REPOSITORY = Path(__file__).resolve().parents[2]
HANDLED = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2]
# The classifier's loader does not shuffle: a resume has nothing to restore but the position,
# which Resumable does.
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


class Resumable(DataLoader[Any]):
    """A loader in fixed order that continues behind the batch where it stopped."""

    _skip = 0
    _given = 0

    def __iter__(self) -> Any:
        skip, self._skip = self._skip, 0
        self._given = skip
        for index, batch in enumerate(super().__iter__()):
            if index >= skip:
                self._given += 1
                yield batch

    def state_dict(self) -> dict[str, int]:
        return {"given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._skip = state["given"] % len(self)


class Steady(Classifier):
    def train_dataloader(self) -> Any:
        return Resumable(patterns(96, 1), batch_size=16)

    def val_dataloader(self) -> Any:
        return DataLoader(patterns(32, 2), batch_size=8)


class Sender(pl.Callback):
    """Send signals to this process at one place of the run, and record what is called."""

    def __init__(self, hook: str, epoch: int, batch: int, *signums: int) -> None:
        self.place, self.signums = (hook, epoch, batch), signums
        self.calls: list[tuple[str, int, int]] = []

    def _reach(self, trainer: pl.Trainer, hook: str, batch: int = 0) -> None:
        self.calls.append((hook, trainer.global_step, batch))
        if (hook, trainer.current_epoch, batch) == self.place:
            for signum in self.signums:
                os.kill(os.getpid(), signum)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self._reach(trainer, "batch", batch_idx)

    def on_validation_batch_start(
        self, trainer: Any, module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._reach(trainer, "validation", batch_idx)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self._reach(trainer, "epoch_start")

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self._reach(trainer, "epoch_end")

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self._reach(trainer, "train_end")


def handlers() -> list[Any]:
    return [signal.getsignal(signum) for signum in HANDLED]


def stopped(folder: Path, sender: Sender, model: Any = None, **options: Any) -> Any:
    """Train until the signal ends it; return the code, the file and the stopped model."""
    before = handlers()
    stop = StopOnSignal()
    run = trainer(folder, [*options.pop("callbacks", []), stop, sender], **options)
    with pytest.raises(SystemExit) as ended:
        run.fit(model or Steady())
    assert handlers() == before
    assert pickle.loads(pickle.dumps(ended.value)).code == ended.value.code  # from a job's process
    assert "train_end" not in {call[0] for call in sender.calls}
    return ended.value.code, folder / "checkpoints" / "last.ckpt"


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)  # a signal that is handed on comes a moment later


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def final(run: pl.Trainer, path: Path) -> dict[str, Any]:
    run.save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    # Where the run lies, and when it was started.
    return {
        key: content[key]
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step")
    }


def stages() -> list[Any]:
    return [masker(start_epoch=1), PhysicalPruner()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[Any]]:
    """The end of a run that nothing disturbs, and the hooks that were called."""
    folder, seen = tmp_path_factory.mktemp("whole"), Sender("", 0, 0)
    run = trainer(folder, [*stages(), seen], 3)
    run.fit(Steady(schedule="step"))
    return final(run, folder / "a.ckpt"), seen.calls


@pytest.mark.parametrize(
    ("hook", "epoch", "batch", "step"),
    [
        ("batch", 0, 0, 1),
        ("batch", 1, 2, 9),
        ("batch", 1, 5, 12),  # the last of the epoch: its end belongs to it
        ("validation", 1, 0, 12),
        ("validation", 1, 2, 12),
        ("epoch_end", 1, 0, 13),  # sent behind the hook that could have ended the run here
        ("epoch_start", 2, 0, 13),
    ],
)
def test_a_resume_equals_the_undisturbed_run(
    tmp_path: Path, whole: Any, hook: str, epoch: int, batch: int, step: int
):
    expected, calls = whole
    seen = Sender(hook, epoch, batch, signal.SIGTERM)
    code, path = stopped(tmp_path, seen, Steady(schedule="step"), callbacks=stages(), epochs=3)
    assert code == 143
    assert torch.load(path, weights_only=True)["global_step"] == step
    after = Sender("", 0, 0)
    again = trainer(tmp_path, [*stages(), StopOnSignal(), after], 3)
    again.fit(Steady(schedule="step"), ckpt_path=path, weights_only=True)
    assert equal(expected, final(again, tmp_path / "b.ckpt"))
    # Every batch, validation and epoch end happened once, in one of the two parts.
    assert seen.calls + after.calls == calls


def test_the_average_goes_on(tmp_path: Path):
    average = lambda: [ExponentialMovingAverage(0.9, 2.0)]  # noqa: E731
    whole = trainer(tmp_path / "whole", average(), 2)
    whole.fit(Steady())
    sender = Sender("batch", 1, 1, signal.SIGUSR1)
    code, path = stopped(tmp_path, sender, callbacks=average(), epochs=2)
    assert code == 128 + signal.SIGUSR1
    again = trainer(tmp_path, average(), 2)
    again.fit(Steady(), ckpt_path=path, weights_only=True)
    assert equal(final(whole, tmp_path / "a.ckpt"), final(again, tmp_path / "b.ckpt"))


def test_no_accumulated_gradient_is_lost(tmp_path: Path):
    options = {"epochs": 2, "accumulate_grad_batches": 3}
    whole = trainer(tmp_path / "whole", [], **options)
    whole.fit(Steady())
    sender = Sender("batch", 1, 0, signal.SIGTERM)
    _, path = stopped(tmp_path, sender, **options)
    content = torch.load(path, weights_only=True)
    assert content["global_step"] == 3
    assert content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["completed"] == 3
    again = trainer(tmp_path, [], **options)
    again.fit(Steady(), ckpt_path=path, weights_only=True)
    assert equal(final(whole, tmp_path / "a.ckpt"), final(again, tmp_path / "b.ckpt"))


def test_validation_within_an_epoch_runs_once(tmp_path: Path):
    options = {"epochs": 1, "val_check_interval": 3}
    whole_seen, after = Sender("", 0, 0), Sender("", 0, 0)
    trainer(tmp_path / "whole", [whole_seen], **options).fit(Steady())
    seen = Sender("batch", 0, 2, signal.SIGTERM)
    _, path = stopped(tmp_path, seen, **options)
    trainer(tmp_path, [after], **options).fit(Steady(), ckpt_path=path, weights_only=True)
    assert seen.calls + after.calls == whole_seen.calls


class Rare(ManualClassifier):
    """Manual optimization that steps at every third batch."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.manual_backward(Classifier.training_step(self, batch, batch_idx) / 3)
        if batch_idx % 3 == 2:
            for optimizer in self.optimizers():
                optimizer.step()
                optimizer.zero_grad()


def test_manual_optimization_stops_behind_a_step(tmp_path: Path):
    seen = Sender("batch", 0, 0, signal.SIGTERM)
    stopped(tmp_path, seen, Rare())
    assert sum(call[0] == "batch" for call in seen.calls) == 3


def test_what_it_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    code, path = stopped(tmp_path, Sender("batch", 0, 1, signal.SIGINT))
    out, err = capfd.readouterr()
    assert code == 130
    assert "SIGINT: stopping after this batch; press Ctrl-C again to stop at once" in err
    assert f"SIGINT: stopped after step 2 (epoch 1), saved to {path}" in out


def test_a_second_interrupt_ends_at_once(tmp_path: Path):
    sender = Sender("batch", 0, 1, signal.SIGINT, signal.SIGINT)
    code, path = stopped(tmp_path, sender)
    assert code == 1  # Lightning's own for a KeyboardInterrupt
    assert not path.exists()


def test_a_repeated_sigterm_is_one(tmp_path: Path):
    code, path = stopped(tmp_path, Sender("batch", 0, 1, signal.SIGTERM, signal.SIGTERM))
    assert code == 143
    assert path.is_file()


def test_earlier_handlers_come_after_the_file(tmp_path: Path):
    path, calls = tmp_path / "checkpoints" / "last.ckpt", []
    kept = {
        signum: signal.signal(signum, lambda signum, frame: calls.append((signum, path.is_file())))
        for signum in (signal.SIGTERM, signal.SIGUSR2)
    }
    try:
        both = Sender("batch", 0, 1, signal.SIGTERM, signal.SIGUSR2)
        stopped(tmp_path, both)
    finally:
        for signum, handler in kept.items():
            signal.signal(signum, handler)
    assert calls == [(signal.SIGTERM, True), (signal.SIGUSR2, True)]


def test_an_earlier_handler_may_end_the_process(tmp_path: Path):
    def requeue(signum: int, frame: Any) -> None:  # as submitit does
        sys.exit(-1)

    kept = signal.signal(signal.SIGUSR2, requeue)
    try:
        code, path = stopped(tmp_path, Sender("batch", 0, 1, signal.SIGUSR2))
    finally:
        signal.signal(signal.SIGUSR2, kept)
    assert code == -1
    assert path.is_file()


class Slurm(SLURMEnvironment):
    """A SLURM job of one process, without a cluster."""

    def __init__(self) -> None:
        super().__init__(auto_requeue=True, requeue_signal=signal.SIGUSR1)

    creates_processes_externally = False

    def world_size(self) -> int:
        return 1

    def global_rank(self) -> int:
        return 0

    local_rank = node_rank = global_rank


@pytest.mark.filterwarnings("ignore:.*srun.*")
def test_lightning_requeues_after_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commands: list[Any] = []
    target = "lightning.pytorch.trainer.connectors.signal_connector.call"
    path = tmp_path / "checkpoints" / "last.ckpt"
    monkeypatch.setattr(target, lambda command: commands.append((command, path.is_file())) or 0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    sender = Sender("batch", 0, 1, signal.SIGUSR1)
    code, _ = stopped(tmp_path, sender, plugins=[Slurm()])
    assert code == 128 + signal.SIGUSR1
    assert commands == [(["scontrol", "requeue", "7"], True)]


def test_a_signal_after_the_end_takes_its_usual_course(tmp_path: Path):
    calls: list[int] = []
    kept = signal.signal(signal.SIGTERM, lambda signum, frame: calls.append(signum))
    try:
        run = trainer(tmp_path, [Sender("train_end", 1, 0, signal.SIGTERM), StopOnSignal()], 1)
        run.fit(Steady())
    finally:
        signal.signal(signal.SIGTERM, kept)
    assert calls == [signal.SIGTERM]


def test_ignored_signals_stay_ignored(tmp_path: Path):
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        trainer(tmp_path, [StopOnSignal(), Sender("batch", 0, 1, signal.SIGINT)], 1).fit(Steady())
    finally:
        signal.signal(signal.SIGINT, kept)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("place", ["fit", "step"])
def test_handlers_are_restored_after_an_error(tmp_path: Path, place: str):
    class Faulty(pl.Callback):
        def on_sanity_check_start(self, *args: Any) -> None:
            if place == "fit":
                raise RuntimeError("fault")

        def on_train_batch_end(self, *args: Any) -> None:
            raise RuntimeError("fault")

    before = handlers()
    with pytest.raises(RuntimeError, match="fault"):
        trainer(tmp_path, [StopOnSignal(), Faulty()], num_sanity_val_steps=1).fit(Steady())
    if place == "step":
        assert handlers() == before
    # What Lightning puts back before the first step hands every signal on.
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert signal.getsignal(signal.SIGINT) == before[1]
    for signum, handler in zip(HANDLED, before, strict=True):
        signal.signal(signum, handler)


def test_no_handlers_outside_the_main_thread(tmp_path: Path):
    seen: list[Any] = []
    before = handlers()

    class Look(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            seen.append(handlers() == before)

    run = trainer(tmp_path, [StopOnSignal(), Look()], 1)
    thread = threading.Thread(target=run.fit, args=(Steady(),))
    thread.start()
    thread.join()
    assert seen == [True] * 6


def test_a_failed_write_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pl.Trainer, "save_checkpoint", lambda *args, **kwargs: None)
    with pytest.warns(UserWarning, match="could not be written"):
        stopped(tmp_path, Sender("batch", 0, 1, signal.SIGTERM))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_outlive_an_interrupt_of_the_terminal(tmp_path: Path):
    """Ctrl-C reaches the whole process group; the accumulated batches still have to come."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.runs.stopped_run", str(tmp_path), "workers"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 130, done.stderr[-3000:]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 1
    assert done.stderr.count("SIGINT: stopping") == 1


def test_all_ranks_stop_at_the_same_batch(tmp_path: Path):
    """Only rank 1 gets the signal."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "LOCAL_", "NODE_"))}
    done = subprocess.run(
        [sys.executable, "-m", "tests.runs.stopped_run", str(tmp_path), "ddp"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        env=kept | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 143, done.stderr[-3000:]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2
    steps = {(tmp_path / f"rank{rank}.txt").read_text() for rank in (0, 1)}
    assert steps == {"2 143"}
    assert done.stdout.count("SIGTERM: stopped after step 2") == 1


def test_last_is_the_newest_whatever_the_metric_says(tmp_path: Path):
    class Worse(Steady):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val/accuracy", -float(self.current_epoch))

    options = {"dirpath": tmp_path, "enable_version_counter": False}
    best = ModelCheckpoint(filename="best", monitor="val/accuracy", mode="max", **options)
    last = ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **options)
    stop = StopOnSignal(str(tmp_path / "last.ckpt"))
    run = trainer(
        tmp_path,
        [best, last, stop, Sender("batch", 3, 0, signal.SIGTERM)],
        enable_checkpointing=True,
    )
    with pytest.raises(SystemExit):
        run.fit(Worse())
    found = {
        name: torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["global_step"]
        for name in ("best", "last")
    }
    assert found == {"best": 6, "last": 19}


def test_the_path_is_checked():
    with pytest.raises(ValueError, match=r"ending with \.ckpt"):
        StopOnSignal("folder")
