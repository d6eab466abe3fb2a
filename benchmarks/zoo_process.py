"""A function's run in a process of its own, with limits of processor time and memory."""

import ctypes
import json
import os
import resource
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>: who is killed takes with it what it started
PATIENCE = 20  # the clock may show this many times the processor seconds on a shared machine


class Limited:
    """A forked process that runs a function and keeps what it returns, plain data.

    It is the caller's copy: what was imported and built is there at once. Ended by a limit, or
    from within C code, it costs the caller nothing. It prints nothing.

    Args:
        work: The function, without arguments.
        seconds: Processor seconds that it may take.
        megabytes: Memory that it may take beyond what the caller has.
        clock: Seconds on the clock; None: 20 times the processor seconds.
    """

    def __init__(
        self,
        work: Callable[[], Any],
        seconds: int,
        megabytes: int,
        clock: float | None = None,
    ) -> None:
        handle, path = tempfile.mkstemp(prefix="zoo_", suffix=".json")
        os.close(handle)
        self._path = Path(path)
        self._end = time.monotonic() + (PATIENCE * seconds if clock is None else clock)
        with warnings.catch_warnings():  # of threads in the caller: the child needs none of them
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            _run(work, seconds, megabytes, self._path)
        with suppress(ProcessLookupError, PermissionError):
            os.setpgid(self._pid, self._pid)  # the child does so too: whoever comes first

    def poll(self) -> dict[str, Any] | None:
        """Return ``{"value": ...}``, or why there is none, once it has ended; None before.

        The reasons: ``{"hang": text}`` for a limit of time, ``{"error": text, "kind": class}``
        for an exception, ``{"error": text, "kind": "signal"}`` for an end from outside.
        """
        done, status = os.waitpid(self._pid, os.WNOHANG)
        if not done:
            if time.monotonic() < self._end:
                return None
            self._kill()
            os.waitpid(self._pid, 0)
            self._path.unlink(missing_ok=True)
            return {"hang": "no answer: the clock ran out"}
        self._kill()  # what it may have left behind
        text = self._path.read_text()
        self._path.unlink(missing_ok=True)
        if text:
            found: dict[str, Any] = json.loads(text)
            return found
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if number == signal.SIGXCPU:
            return {"hang": "no answer: the processor time ran out"}
        name = signal.Signals(number).name if number else f"exit {os.WEXITSTATUS(status)}"
        return {"error": f"ended by {name}", "kind": "signal"}

    def wait(self) -> dict[str, Any]:
        """Wait for the end and return what ``poll`` does."""
        try:
            while (found := self.poll()) is None:
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise
        return found

    def stop(self) -> None:
        """End the process and what it started."""
        self._kill()
        os.waitpid(self._pid, 0)
        self._path.unlink(missing_ok=True)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)


def _run(work: Callable[[], Any], seconds: int, megabytes: int, path: Path) -> None:
    """Run the function in the child and end it; nothing of the caller's cleaning up is done."""
    code = 1
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        try:
            text = json.dumps({"value": work()})
        except Exception as error:
            text = json.dumps({"error": str(error)[:2000], "kind": type(error).__name__})
        path.write_text(text)
        code = 0
    finally:
        os._exit(code)
