"""The one way in which the package reads files of ``torch.save`` whose content it loads."""

import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_prune.files.bounded_unpickler import no_collection
from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.file_error import printable
from lightning_prune.files.foreign_file import describe_foreign
from lightning_prune.files.inert_pickle import UNREADABLE, explain
from lightning_prune.files.open_regular import open_regular
from lightning_prune.files.plain_pickle import PickledObjectsError, PlainUnpickler
from lightning_prune.files.sidecar import Sidecar
from lightning_prune.files.torch_zip import TorchZip
from lightning_prune.files.value_graph import check_graph

_SMALL = 64 * 2**20
"""Bytes that an expanded tensor may claim whatever the size of its file: real ones are small."""


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> Any:
    """Load tensors and plain values from a file that may be torn, altered or hostile.

    In this order, each before the next: the kind of the file (never a pipe or a device), the
    archive's directory (uncompressed members of different names that fit into the file, in which
    every reader finds the same), the structure (a bounded walk over the pickle that calls nothing
    and compares every tensor with its bytes), the content (against ``NAME.sha256`` where that is
    there, else against the archive's own checksums, which ``torch.load`` does not look at), and
    only then, from the same open file, ``torch.load(weights_only=True)``.

    Args:
        path: The file.
        map_location: As in ``torch.load``. ``"meta"`` reads the plain values and the shapes, from
            a few kilobytes of even a large file, and leaves the content unchecked; ``torch.load``
            is not asked then, and objects of classes declared by ``add_safe_globals`` are records.

    Returns:
        What was saved.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is torn, altered, of another format, claims absurd sizes, or holds
            pickled objects, of which none was executed.
    """
    path = Path(path)
    with _explained(path), open_regular(path) as file:
        # One open file for all: the name may lead to another one a moment later.
        archive = TorchZip(file)
        content = check_structure(archive)
        if str(map_location) == "meta":
            return content
        check_content(path, file, archive)
        del content
        return _load(file, map_location)


@contextmanager
def open_checked(path: str | Path) -> Iterator[BufferedReader]:
    """Open a checkpoint that another reader is to load, after the checks of ``read_checkpoint``.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: as of ``read_checkpoint``.
    """
    path = Path(path)
    with _explained(path):
        file = open_regular(path)
    with file:
        with _explained(path):
            archive = TorchZip(file)
            check_structure(archive)
            check_content(path, file, archive)
        file.seek(0)
        yield file


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no checkpoint at {path}") from error
    except OSError as error:
        raise CheckpointError(path, explain(error)) from error
    except ValueError as error:
        raise CheckpointError(path, describe_foreign(path, "checkpoint") or str(error)) from error


def check_content(path: Path, file: BufferedReader, archive: TorchZip) -> None:
    """Compare a file with its sidecar, or with its own checksums where it has none.

    Raises:
        ValueError: it was altered.
    """
    sidecar = Sidecar(path)
    if not sidecar.is_there():
        archive.check_sums()
        return
    problem = sidecar.problem(file)
    if problem is not None:
        raise ValueError(problem)


def check_structure(archive: TorchZip) -> Any:
    """Walk over the pickle without calling anything, and compare every claim with the archive.

    Returns:
        What the file holds, with tensors on the meta device.

    Raises:
        ValueError: a tensor claims more than its storage, something would be allocated, or the
            walk would not come to an end.
    """
    archive.check_byte_order()

    def sizes_only(key: str, dtype: torch.dtype, count: int) -> Tensor:
        info = archive.entries.get(f"{archive.folder}data/{key}")
        needed = count * dtype.itemsize
        if info is None:
            raise ValueError(f"storage {printable(key)} is missing")
        if needed > info.file_size:
            raise ValueError(f"storage {printable(key)} holds {info.file_size} bytes, not {needed}")
        return torch.empty(needed, dtype=torch.uint8, device="meta").view(dtype)

    most = max(_SMALL, archive.length)
    data = archive.read("data.pkl")
    try:
        walk = PlainUnpickler(data, sizes_only, most, rest=archive.length - len(data))
        content = walk.load()
        check_graph(content)
    except PickledObjectsError as error:
        raise ValueError(f"refused: {error}") from error
    except UNREADABLE as error:
        raise ValueError(f"damaged or refused: {explain(error)}") from error
    return content


def _load(file: BufferedReader, map_location: Any) -> Any:
    file.seek(0)
    try:
        with warnings.catch_warnings(), no_collection():
            warnings.filterwarnings("ignore", message=".*TorchScript.*")
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            warnings.filterwarnings("ignore", message="Validating sparse tensor invariants")
            return torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        # torch names the first class that it does not know, in the midst of advice to trust it.
        name = re.search(r"GLOBAL ([\w.]+)|class (\S+)", str(error))
        what = f" ({printable(name[1] or name[2], 100)})" if name else ""
        raise ValueError(
            f"refused: it holds pickled objects{what} beside tensors and plain values; nothing "
            "was executed"
        ) from error
    except UNREADABLE as error:
        raise ValueError(f"cannot be loaded ({explain(error)})") from error
