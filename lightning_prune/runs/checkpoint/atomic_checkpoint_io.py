"""Checkpoint files that survive kills, full disks and diverged weights."""

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.part_file import PartFile
from lightning_prune.files.read_checkpoint import read_checkpoint
from lightning_prune.files.sidecar import Sidecar
from lightning_prune.runs.checkpoint.lightning_content import check_lightning
from lightning_prune.runs.checkpoint.newest_checkpoint import search_checkpoints
from lightning_prune.runs.checkpoint.plain_content import PlainContent, plain_content
from lightning_prune.runs.checkpoint.unreadable_parts import unreadable_parts

_NO_SPACE = {errno.ENOSPC, errno.EFBIG} | {getattr(errno, "EDQUOT", errno.ENOSPC)}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints whole or not at all, and recognise torn and altered ones.

    For ``Trainer(plugins=[AtomicCheckpointIO()])``, also inside ``AsyncCheckpointIO``.

    A save writes a temporary file in the same folder, and only a complete one takes the place of
    the old, so whenever the process is killed, the old or the new file is there and loads. A full
    disk, an exceeded quota or size limit does not end the training: the old file stays, a warning
    says so, and the next save tries again. The same holds where weights are NaN or infinite.
    ``ModelCheckpoint`` does not learn of it and asks to remove the file that it takes for
    replaced; that one is kept until a replacement was really written. (Inside ``AsyncCheckpointIO``
    it asks before the writing begins, so there nothing can be kept.)

    A load reads tensors and plain values only, and after the checks of ``read_checkpoint``. Its
    error names the newest intact checkpoint of the folder. Addresses of object stores (``s3://``),
    which replace whole objects anyway, are left to Lightning.

    Args:
        digest: Whether to write ``NAME.ckpt.sha256`` beside each file, for ``sha256sum -c`` and
            for the check on load. Without it the checksums inside the file are compared.
        refuse_non_finite: Whether a ``state_dict`` that holds NaN or infinity is not written.
            Infinity alone or beside nothing but zeros (an attention mask, a bound that has seen
            no value yet) is no fault.
    """

    def __init__(self, digest: bool = True, refuse_non_finite: bool = True):
        self.digest = digest
        self.refuse_non_finite = refuse_non_finite
        self._unwritten: Path | None = None
        self._told: set[str] = set()
        self._has_saved = False
        self._kept: dict[Path, list[Path]] = {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            TypeError: ``storage_options`` is given.
            OSError: the file cannot be written, for another reason than space.
            ValueError: at the first save, something cannot be read back. The file was written,
                without what is no plain value.
        """
        plain = plain_content(checkpoint)
        self._tell_changes(plain)
        checkpoint = plain.content
        if storage_options is not None or _is_remote(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            self._refuse(plain, path)
            return
        path = Path(path).absolute()
        state = checkpoint.get("state_dict", {})
        bad = list(_non_finite(state)) if self.refuse_non_finite else []
        if bad:
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            self._leave(
                path,
                f"at step {checkpoint.get('global_step')} NaN or infinity is in "
                f"{', '.join(bad[:3])}{more}: the training diverged (refuse_non_finite=False "
                "writes such weights too)",
            )
            return
        try:
            self._write(checkpoint, path)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            self._leave(path, f"{error.strerror}: {_space(checkpoint, path)}")
        else:
            self._written(path)
            if not self._has_saved:
                self._read_back(plain, path)
            self._refuse(plain, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint of tensors and plain values.

        Raises:
            ValueError: ``weights_only=False``, which would execute what is pickled in the file.
            FileNotFoundError: there is no such file.
            CheckpointError: it is torn, altered, no checkpoint, or holds pickled objects.
        """
        if weights_only is False:
            raise ValueError(
                "weights_only=False would execute what is pickled in a checkpoint, and "
                "AtomicCheckpointIO does not: leave the argument out, or load a file that you "
                "trust with a Trainer without this plugin"
            )
        if _is_remote(path):
            return super().load_checkpoint(path, map_location, weights_only=True)
        path = Path(path).absolute()
        try:
            content: Any = read_checkpoint(path, map_location)
            if not isinstance(content, dict):
                raise CheckpointError(path, "no Lightning checkpoint")
            # Fabric writes what its user likes.
            return check_lightning(content) if "pytorch-lightning_version" in content else content
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; {self._way_out(path)}") from error
        except ValueError as error:
            why = error.reason if isinstance(error, CheckpointError) else str(error)
            raise CheckpointError(path, f"{why}; {self._way_out(path)}") from error

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its digest, unless what was to replace it was not written."""
        if _is_remote(path):
            super().remove_checkpoint(path)
            return
        path = Path(path).absolute()
        last = self._unwritten
        if last is not None and path != last:
            kept = self._kept.setdefault(last, [])
            kept += [old for old in [path, *self._kept.pop(path, [])] if old != last]
            return
        for old in [path, *self._kept.pop(path, [])]:
            self._remove(old)

    def _write(self, checkpoint: dict[str, Any], path: Path) -> None:
        sidecar = Sidecar(path, follow=False)  # of a link, the link itself is replaced
        with suppress(OSError):  # what others left there does not matter to this file
            PartFile.clear_stale(path)
            PartFile.clear_stale(sidecar.path)
        with PartFile(path, self.digest) as part:
            try:
                torch.save(checkpoint, cast(IO[bytes], part))
                part.sync()
            except (OSError, RuntimeError):
                if part.error is not None:  # torch reports a failed write as one of its own
                    raise part.error from None
                raise
            if self.digest:
                # Both, so that whichever file a kill leaves is known.
                sidecar.write([*_digests(sidecar), part.hexdigest()])
            else:
                sidecar.path.unlink(missing_ok=True)
            _sync_folder(path.parent)
            part.commit()
            _sync_folder(path.parent)
            if self.digest:
                self._settle(sidecar, part.hexdigest())

    @staticmethod
    def _settle(sidecar: Sidecar, digest: str) -> None:
        try:
            sidecar.write([digest])
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            # The checkpoint itself is complete, and the two lines know it.

    def _tell_changes(self, plain: PlainContent) -> None:
        new = {place: how for place, how in plain.changed.items() if place not in self._told}
        self._told |= new.keys()
        named = [f"{place} ({how})" for place, how in new.items()]
        if named:
            more = f" and {len(named) - 5} more" if len(named) > 5 else ""
            rank_zero_warn(
                f"checkpoints hold {', '.join(named[:5])}{more} as plain values, which is what "
                "load_from_checkpoint gives back"
            )

    @staticmethod
    def _read_back(plain: PlainContent, path: Path) -> None:
        """Find what is plain and cannot be read all the same: quantized tensors, for one."""
        try:
            read_checkpoint(path, "meta")
        except CheckpointError as error:
            if not isinstance(error.__cause__, OSError):
                plain.refused |= unreadable_parts(plain.content) or {str(path): error.reason}

    def _refuse(self, plain: PlainContent, path: str | Path) -> None:
        first, self._has_saved = not self._has_saved, True
        if not plain.refused:
            return
        text = f"a resume from {path} would fail or lack some of its content: {plain.explain()}"
        if first:
            raise ValueError(text)
        new = plain.refused.keys() - self._told
        self._told |= new
        if new:
            rank_zero_warn(text)

    def _leave(self, path: Path, why: str) -> None:
        self._unwritten = path
        old = "the earlier file stays" if os.path.exists(path) else "earlier checkpoints stay"
        rank_zero_warn(f"{path} was not written, {old} and the training continues: {why}")

    def _written(self, path: Path) -> None:
        self._unwritten = None
        for replaced in self._kept.pop(path, []):
            self._remove(replaced)
        for waiting in self._kept.values():
            waiting[:] = [old for old in waiting if old != path]

    def _remove(self, path: Path) -> None:
        """Remove a file; one that cannot be removed is no reason to end a training."""
        try:
            if path.is_dir() and not path.is_symlink():
                super().remove_checkpoint(path)
                return
            path.unlink(missing_ok=True)
            Sidecar(path, follow=False).path.unlink(missing_ok=True)
        except OSError as error:
            rank_zero_warn(
                f"{path} could not be removed and is left there: {error.strerror or error}"
            )

    def _way_out(self, path: Path) -> str:
        kept = [old for old in self._kept.get(path, []) if os.path.isfile(old)]
        if kept:
            return f"it was to replace {kept[0]}, which was kept"
        return search_checkpoints(path.parent).describe()


def _digests(sidecar: Sidecar) -> list[str]:
    try:
        return sidecar.current()
    except OSError:  # the old file cannot be read: nobody will take it for intact
        return []


def _is_remote(path: str | Path) -> bool:
    return isinstance(path, str) and "://" in path


def _non_finite(state: Mapping[str, Any]) -> Iterator[str]:
    for name, value in state.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        if value.layout != torch.strided or value.is_meta:
            continue
        value = value.detach()
        value = value.float() if value.dtype.itemsize == 1 else value  # no isfinite in 8 bits
        finite = value.isfinite()
        if not finite.all() and (value.isnan().any() or value[finite].any()):
            yield name


def _space(checkpoint: dict[str, Any], path: Path) -> str:
    needed = sum(dict(_storages(checkpoint, set())).values())
    free = shutil.disk_usage(next(folder for folder in path.parents if folder.exists())).free
    return (
        f"the checkpoint needs about {needed / 1e6:.1f} MB beside the old one, and "
        f"{free / 1e6:.1f} MB are free on that disk (a quota or a size limit may be lower)"
    )


def _storages(value: Any, seen: set[int]) -> Iterator[tuple[int, int]]:
    if isinstance(value, Tensor):
        if value.layout == torch.strided:
            storage = value.untyped_storage()
            yield storage.data_ptr(), storage.nbytes()
    elif isinstance(value, dict | list | tuple) and id(value) not in seen:
        seen.add(id(value))
        for child in value.values() if isinstance(value, dict) else value:
            yield from _storages(child, seen)


def _sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a loss of power."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(descriptor)
