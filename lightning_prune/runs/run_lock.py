"""One owner for a folder of a run: two processes that continue in it would mix their files."""

import contextlib
import errno
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

from lightning_prune.errors import ConfigError
from lightning_prune.runs.processes import is_alive
from lightning_prune.runs.say import is_first_process

if sys.platform != "win32":
    import fcntl

LOCK = "run.lock"
_BEAT = 20.0
"""Seconds between two signs of life; a lock without any for three of them is abandoned."""
_OWN: set[Path] = set()
"""The locks that this process holds: closing a second file of one would give it up."""
_HELD = {errno.EACCES, errno.EAGAIN}


@dataclass(frozen=True)
class Owner:
    """The process that works in a folder.

    Attributes:
        host: Its machine.
        process: Its number there.
        since: When it began, seconds since 1970.
        token: Distinguishes it from others of the same number.
    """

    host: str
    process: int
    since: float
    token: str

    @classmethod
    def this_process(cls) -> "Owner":
        """Return that of this process."""
        return cls(socket.gethostname(), os.getpid(), time.time(), uuid.uuid4().hex)

    @classmethod
    def read(cls, text: str) -> "Owner | None":
        """Return what a lock file says; None where it says nothing that can be understood."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def __str__(self) -> str:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.process} on {self.host}, since {began}"


@contextlib.contextmanager
def run_lock(folder: str | Path) -> Iterator[None]:
    """Hold the lock of a folder: its `run.lock` names host and process, and is removed in the end.

    The operating system gives up the lock of a process that ends, however it ends: what a killed
    run left is taken over, and that is said. Where a file system has no locks, the process named
    in the file is looked up on this machine; one on another machine counts as alive while it
    renews the file. All processes of a distributed run are one owner: rank 0 holds the lock.

    Raises:
        ConfigError: another process works in the folder.
    """
    path = Path(folder).resolve() / LOCK
    if not is_first_process() or _node() != 0 or path in _OWN:
        yield
        return
    lock = _Lock(path)
    lock.acquire()
    _OWN.add(path)
    try:
        yield
    finally:
        _OWN.discard(path)
        lock.release()


def working_owner(folder: str | Path) -> Owner | None:
    """Return the other process that works in a folder, or None."""
    lock = _Lock(Path(folder).resolve() / LOCK)
    return None if lock.path in _OWN else lock.working()


class _Lock:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner = Owner.this_process()
        self._file: BufferedRandom | None = None
        self._end = threading.Event()

    def acquire(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be written ({error.strerror or error}): a run needs a folder "
                "that it can write to"
            ) from error
        threading.Thread(target=self._beat, daemon=True, name="run_lock").start()

    def release(self) -> None:
        self._end.set()
        if self._file is None:
            return
        ours = self._is_ours()
        if sys.platform == "win32":
            self._file.close()  # there no open file can be removed
        with contextlib.suppress(OSError):
            if ours:  # while it is still locked: a moment later it may be somebody else's
                self.path.unlink()
        self._file.close()
        self._file = None

    def working(self) -> Owner | None:
        try:
            with self.path.open("r+b") as file:
                former, works = self._look(file)
        except OSError:  # there is none
            return None
        return (former or Owner("an unknown host", 0, 0.0, "")) if works else None

    def _look(self, file: BufferedRandom) -> tuple[Owner | None, bool]:
        """Return the owner named in a file, and whether it works; if not, the lock is ours."""
        free = _lock(file)
        former = Owner.read(file.read(4096).decode(errors="replace"))
        return former, free is False or (former is not None and self._works(former, free))

    def _open(self) -> None:
        while True:
            file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
            former, works = self._look(file)
            if works:
                file.close()
                raise ConfigError(self._refusal(former))
            if self._is_same(file):
                break
            file.close()  # it was released, and removed, a moment ago
        self._file = file
        if former is not None:
            print(
                f"{self.path} is left over from {former}, which ended without removing it: it is "
                "taken over",
                flush=True,
            )
        file.seek(0)
        file.truncate()
        file.write(json.dumps(asdict(self.owner)).encode())
        file.flush()

    def _works(self, former: Owner, free: bool | None) -> bool:
        """Return whether the owner named in the file still works."""
        if former.host == self.owner.host:
            # The lock says it for sure; without locks the number of a process has to do.
            return free is None and former.process != os.getpid() and is_alive(former.process)
        age = self._age()
        if age > 3 * _BEAT:
            return False
        print(
            f"{self.path} belongs to {former}: waiting up to {3 * _BEAT - age:.0f} s for a sign of "
            "life",
            flush=True,
        )
        try:
            seen = self.path.stat().st_mtime_ns
            while self._age() <= 3 * _BEAT:
                time.sleep(_BEAT / 20)
                if self.path.stat().st_mtime_ns != seen:
                    return True
        except FileNotFoundError:  # it has just ended
            pass
        return False

    def _age(self) -> float:
        """Return seconds since the last sign of life, by the clock of the file system."""
        probe = self.path.with_name(f"{LOCK}.{self.owner.token}")
        try:
            probe.touch()
            return probe.stat().st_mtime - self.path.stat().st_mtime
        except FileNotFoundError:
            return float("inf")
        finally:
            probe.unlink(missing_ok=True)

    def _refusal(self, former: Owner | None) -> str:
        who = "another process" if former is None else str(former)
        return (
            f"{self.path.parent} belongs to a run that still works in it: {who}. Wait for its end "
            "or stop it, or choose another folder. If it is certain that nothing works there, "
            f"delete {self.path}"
        )

    def _beat(self) -> None:
        while not self._end.wait(_BEAT):
            with contextlib.suppress(OSError):
                if self._is_ours():
                    os.utime(self.path)

    def _is_ours(self) -> bool:
        return self._file is not None and self._is_same(self._file)

    def _is_same(self, file: BufferedRandom) -> bool:
        """Return whether the name still leads to an open file."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False


def _node() -> int:
    """Return the number of this machine in a distributed run that was started on each of them."""
    number = os.environ.get("GROUP_RANK", os.environ.get("NODE_RANK", "0"))
    return int(number) if number.isdigit() else 0


def _lock(file: Any) -> bool | None:
    """Return whether the lock was free; None where there are no locks.

    A lock of POSIX, which forked workers do not inherit: it ends with this process, not with them.
    """
    if sys.platform == "win32":
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD else None
    return True
