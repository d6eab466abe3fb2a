"""From which file a run can continue."""

import errno
from dataclasses import dataclass
from pathlib import Path

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.file_error import printable
from lightning_prune.files.inert_pickle import explain
from lightning_prune.files.open_regular import open_regular
from lightning_prune.files.read_checkpoint import check_content, read_checkpoint
from lightning_prune.files.torch_zip import TorchZip
from lightning_prune.runs.checkpoint.lightning_content import check_lightning

# A file of save_weights_only=True has the first three, and so has one of a foreign tool.
_NEEDED = ("state_dict", "epoch", "global_step", "loops", "optimizer_states", "lr_schedulers")
# What another attempt, or another user, may not meet.
_OF_DISK = {
    getattr(errno, name)
    for name in (
        "EIO", "EACCES", "EPERM", "ESTALE", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN",
        "ENXIO", "ENODEV", "EMFILE", "ENFILE", "ENOMEM", "EREMOTEIO", "ENOTCONN", "ENOLINK",
    )
    if hasattr(errno, name)
}  # fmt: skip


@dataclass(frozen=True)
class CheckpointSearch:
    """What a search found.

    Attributes:
        path: The newest intact checkpoint that a training can continue from, or None.
        skipped: Of each other file that was looked at and is none, why.
        disk: Those among them that may be intact: it is the disk that could not read them.
    """

    path: Path | None
    skipped: dict[Path, str]
    disk: frozenset[Path] = frozenset()

    def describe(self) -> str:
        """Return a sentence on where a run can continue."""
        if self.path is not None:
            return f"the newest intact checkpoint here is {printable(str(self.path), 1000)}"
        return "there is no other intact checkpoint to continue from"


def search_checkpoints(folder: str | Path) -> CheckpointSearch:
    """Find the newest intact resumable checkpoint of a run, and say what was passed over.

    The newest is the one with the most steps, then epochs, both as the file itself says, then the
    one written last. Weights-only files have nothing to continue from. Only the structure of each
    file is read to put them in order; the content is checked from the newest down to the first
    intact one.

    Args:
        folder: A run; ``*.ckpt`` in it and in its ``checkpoints/`` are looked at.
    """
    folder = Path(folder)
    found: list[tuple[tuple[int, int, int], Path]] = []
    skipped: dict[Path, str] = {}
    disk: set[Path] = set()
    for path in [*_files(folder / "checkpoints"), *_files(folder)]:
        try:
            found.append((_age(path), path))
        except (CheckpointError, OSError) as error:
            skipped[path] = _reason(error)
            disk |= {path} if _is_of_disk(error) else set()
    for _, path in sorted(found, reverse=True):
        try:
            _check(path)
        except (CheckpointError, OSError) as error:
            skipped[path] = _reason(error)
            disk |= {path} if _is_of_disk(error) else set()
        else:
            return CheckpointSearch(path, skipped, frozenset(disk))
    return CheckpointSearch(None, skipped, frozenset(disk))


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.ckpt"))
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL in the name
        return []


def newest_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest intact checkpoint that a training can continue from, or None.

    ``search_checkpoints`` says too what was passed over, and why.
    """
    return search_checkpoints(folder).path


def _age(path: Path) -> tuple[int, int, int]:
    try:
        content = check_lightning(read_checkpoint(path, "meta"))
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(path, str(error)) from error
    missing = [key for key in _NEEDED if key not in content]
    if missing:
        lacks = " and no ".join(missing)
        raise CheckpointError(path, f"nothing to continue from: it has no {lacks}")
    return content["global_step"], content["epoch"], path.stat().st_mtime_ns


def _check(path: Path) -> None:
    try:
        with open_regular(path) as file:
            check_content(path, file, TorchZip(file))
    except ValueError as error:
        raise CheckpointError(path, str(error)) from error


def _is_of_disk(error: BaseException) -> bool:
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in _OF_DISK


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, CheckpointError) else explain(error)
