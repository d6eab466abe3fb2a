"""Stop a run where a signal asks for it, in a state from which it continues exactly."""

import logging
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_prune.runs.trainer.signals import (
    end_after_batch,
    put_back_at_teardown,
    requeue_signal,
)

# Windows knows the first two only.
_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2")
log = logging.getLogger(__name__)


class StopOnSignal(pl.Callback):
    """Write a full checkpoint when the process is asked to end, and end the run there.

    SIGTERM, SIGINT (Ctrl-C), SIGUSR1 and SIGUSR2 are noted at once. The run stops after the next
    batch that takes an optimizer step, so that no accumulated gradient is lost; behind the last
    batch of an epoch it stops after the epoch's validation and hooks, because Lightning resumes a
    checkpoint from before them without them. A second Ctrl-C interrupts at once, without a file.

    ``trainer.fit`` ends with ``SystemExit``, the exit code being 128 + the signal's number;
    ``on_train_end`` is not called. Handlers that were there before, such as submitit's or
    Lightning's own that requeue a job, are called when the file is written. Under DDP every rank
    stops at the same batch, whichever rank got the signal; that costs one reduction of one number
    an optimizer step. Outside the main thread, where Python allows no handlers, and with
    ``fast_dev_run``, signals are left alone.

    Args:
        path: The file, `.ckpt`; None: `checkpoints/last.ckpt` in the Trainer's
            ``default_root_dir``.

    Raises:
        ValueError: the path does not end with `.ckpt`.
    """

    def __init__(self, path: str | None = None) -> None:
        if path is not None and not path.endswith(".ckpt"):
            raise ValueError(f"path={path!r} is no checkpoint: pass a file name ending with .ckpt")
        self.path = path
        self._process = 0
        self._listening = False
        self._received: list[int] = []
        self._stop = 0
        self._before: dict[int, Any] = {}
        self._step = 0

    # --- hooks ------------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, before the workers of the data loaders are forked: they inherit the handlers."""
        self._received, self._stop, self._before = [], 0, {}
        self._step = trainer.global_step
        if threading.current_thread() is not threading.main_thread():
            log.debug("not in the main thread: signals are left alone")
        elif not getattr(trainer, "fast_dev_run"):  # noqa: B009 - not in the stubs
            # Lightning takes this one only where nobody else has.
            self._listen(without=requeue_signal(trainer))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen instead of Lightning, which has put handlers of its own in between."""
        self._step = trainer.global_step
        if self._listening:
            put_back_at_teardown(trainer, self._before)
            self._listen()

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Remember the step, to know whether the batch takes one."""
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop here if a signal came and no gradient is half accumulated."""
        if trainer.global_step > self._step:
            self._decide(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run the validation that is due to its end: half of one cannot be resumed."""
        if self._stop:
            end_after_batch(trainer, False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop behind it."""
        if self._stop:
            end_after_batch(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop here if a signal came behind the last step, in the validation above all."""
        self._decide(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write the checkpoint if this is the end that was asked for."""
        if not self._stop or not isinstance(exception, SIGTERMException):
            self._give_back()
            return
        stop = self._stop
        exception.code = 128 + stop
        exception.args = (exception.code,)  # what is left of it on the way to another process
        try:
            self._write(trainer)
        finally:
            received, self._stop = self._give_back(), 0
        # Also on ranks that got no signal: Lightning's handler saves, in which all take part.
        for signum in dict.fromkeys([*received, stop]):
            handler = self._before.get(signum)
            # The defaults would kill, or raise KeyboardInterrupt: the run ends anyway.
            if callable(handler) and handler is not signal.default_int_handler:
                handler(signum, None)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop listening; a signal that came behind the last step takes its usual course."""
        self._end()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop listening where the fit had nothing to do."""
        if stage == "fit":
            self._end()

    # --- signals ----------------------------------------------------------------------------

    def _listen(self, without: int | None = None) -> None:
        self._process, self._listening = os.getpid(), True
        for signum in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            present = signal.getsignal(signum)
            # What is ignored (nohup) stays ignored; None is a handler that is not Python's.
            if signum == without or present in (signal.SIG_IGN, None, self._note):
                continue
            self._before.setdefault(signum, present)
            signal.signal(signum, self._note)

    def _note(self, signum: int, frame: Any) -> None:
        if os.getpid() != self._process:
            # A forked worker of a data loader: Ctrl-C reaches it too, but the batch needs it.
            return
        again = signum == signal.SIGINT and signum in self._received
        # Not listening: Lightning has put this handler back after the run.
        if again or not self._listening:
            self._give_back()
            signal.signal(signum, self._before[signum])
            os.kill(self._process, signum)
            return
        if signum not in self._received:
            self._received.append(signum)
            hint = "; press Ctrl-C again to stop at once" if signum == signal.SIGINT else ""
            text = f"\n{signal.Signals(signum).name}: stopping after this batch{hint}\n"
            # A print could have been interrupted by this very handler: Python forbids a second.
            with suppress(OSError):
                os.write(2, text.encode())

    def _decide(self, trainer: pl.Trainer) -> None:
        stop = max(self._received, default=0)
        if trainer.world_size > 1:
            number = torch.tensor(stop, device=trainer.strategy.root_device)
            stop = int(trainer.strategy.reduce(number, reduce_op="max"))
        if stop:
            self._stop = stop
            end_after_batch(trainer)

    def _give_back(self) -> list[int]:
        """Restore the earlier handlers and return the signals that came."""
        if self._listening:
            self._listening = False
            for signum, handler in self._before.items():
                if signal.getsignal(signum) == self._note:
                    signal.signal(signum, handler)
        received, self._received = self._received, []
        return received

    def _end(self) -> None:
        for signum in self._give_back():
            os.kill(os.getpid(), signum)

    # --- the file ---------------------------------------------------------------------------

    def _write(self, trainer: pl.Trainer) -> None:
        path = Path(self.path or Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt")
        old = _identity(path)
        trainer.save_checkpoint(path)
        if _identity(path) != old:
            _say(
                f"{signal.Signals(self._stop).name}: stopped after step {trainer.global_step} "
                f"(epoch {trainer.current_epoch + 1}), saved to {path}"
            )
        elif trainer.is_global_zero:
            rank_zero_warn(
                f"stopped after step {trainer.global_step}, but {path} could not be written: the "
                "run continues from the checkpoint before it"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)
