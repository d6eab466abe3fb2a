"""A file under construction beside its target."""

import hashlib
import os
import re
import sys
import uuid
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl


class PartFile:
    """Write beside a target, then take its place at once.

    Leaving the context without ``commit`` removes what was written and leaves the target alone.
    While it is open the file is locked; the kernel drops the lock with the process, however that
    ends. So ``clear_stale`` can distinguish the remains of a killed process from the work of a live
    one, in whatever container or under whatever process number that runs.

    Args:
        target: The file to replace; its folder is made where it is missing.
        digest: Whether to compute the SHA-256 of what is written.

    Attributes:
        path: The file that is written.
        size: Bytes written until now.
        error: The first error of the operating system while writing, or None. A writer in between
            may report it as something else.
    """

    def __init__(self, target: Path, digest: bool = False):
        self.target = target
        self.path = target
        self.size = 0
        self.error: OSError | None = None
        self._hash = hashlib.sha256() if digest else None
        self._file: BinaryIO | None = None

    def __enter__(self) -> "PartFile":
        self.target.parent.mkdir(parents=True, exist_ok=True)
        while self._file is None:
            self.path = self.target.with_name(f"{self.target.name}.{uuid.uuid4().hex}.part")
            file = self.path.open("xb")
            # Between the two calls another process may have taken the file for a stale one.
            if _lock(file) is False or not self.path.exists():
                file.close()
            else:
                self._file = file
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.path.unlink(missing_ok=True)
        finally:
            self._close()

    @property
    def _open(self) -> BinaryIO:
        if self._file is None:
            raise ValueError(f"{self.path} is not open: write within `with`")
        return self._file

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes.

        Raises:
            OSError: as of any file.
        """
        try:
            self._open.write(data)
        except OSError as error:
            self.error = self.error or error
            raise
        if self._hash is not None:
            self._hash.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: ``sync`` does it once, at the end."""

    def sync(self) -> None:
        """Wait until the disk has everything."""
        file = self._open
        file.flush()
        os.fsync(file.fileno())

    def hexdigest(self) -> str:
        """Return the SHA-256 of what was written.

        Raises:
            ValueError: the file was opened without one.
        """
        if self._hash is None:
            raise ValueError("no digest of this file is kept: open it with digest=True")
        return self._hash.hexdigest()

    def commit(self) -> None:
        """Replace the target, after ``sync``."""
        self.sync()
        if sys.platform == "win32":
            self._close()  # there no open file can be renamed
        os.replace(self.path, self.target)

    def _close(self) -> None:
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:  # what was buffered does not fit: it is to be thrown away
                self.error = self.error or error
            self._file = None

    @staticmethod
    def clear_stale(target: Path) -> list[Path]:
        """Remove what killed processes left of a target's part files, and return the paths."""
        form = re.compile(re.escape(target.name) + r"\.[0-9a-f]{32}\.part")
        removed = []
        for path in target.parent.iterdir() if target.parent.is_dir() else ():
            if form.fullmatch(path.name) and _is_abandoned(path):
                path.unlink(missing_ok=True)
                removed.append(path)
        return removed


def _lock(file: BinaryIO) -> bool | None:
    """Return whether the lock was free; None where there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _is_abandoned(path: Path) -> bool:
    try:
        # Opened for writing: locks over NFS ask for it.
        with path.open("r+b") as file:
            return _lock(file) is True
    except OSError:
        return False
