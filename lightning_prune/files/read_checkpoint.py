"""The one way in which the package reads files of ``torch.save`` whose content it loads."""

import pickle
import re
import warnings
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.inert_pickle import UNREADABLE, InertUnpickler
from lightning_prune.files.sidecar import Sidecar
from lightning_prune.files.torch_zip import TorchZip

_SMALL = 64 * 2**20
"""Bytes that an expanded tensor may claim whatever the size of its file: real ones are small."""


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> Any:
    """Load tensors and plain values from a file that may be torn, altered or hostile.

    In this order, each before the next: the archive's directory (uncompressed members of different
    names that fit into the file), the structure (a walk over the pickle that calls nothing and
    compares every tensor with its bytes), the content (against ``NAME.sha256`` where that is
    there, else against the archive's own checksums, which ``torch.load`` does not look at), and
    only then ``torch.load(weights_only=True)``.

    Args:
        path: The file.
        map_location: As in ``torch.load``. ``"meta"`` reads the plain values and the shapes, from
            a few kilobytes of even a large file, and leaves the content unchecked.

    Returns:
        What was saved.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is torn, altered, of another format, claims absurd sizes, or holds
            pickled objects, of which none was executed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        # One open file for all: the name may lead to another one a moment later.
        with path.open("rb") as file:
            archive = TorchZip(file)
            check_structure(archive)
            if str(map_location) == "meta":
                return _load(str(path), map_location, mmap=True)
            check_content(path, file, archive)
            return _load(file, map_location)
    except OSError as error:
        raise CheckpointError(path, f"unreadable ({error.strerror or error})") from error
    except ValueError as error:
        raise CheckpointError(path, str(error)) from error


def check_content(path: Path, file: BufferedReader, archive: TorchZip) -> None:
    """Compare a file with its sidecar, or with its own checksums where it has none.

    Raises:
        ValueError: it was altered.
    """
    sidecar = Sidecar(path)
    if sidecar.digests() is None:
        archive.check_sums()
        return
    problem = sidecar.problem(file)
    if problem is not None:
        raise ValueError(problem)


def check_structure(archive: TorchZip) -> None:
    """Walk over the pickle without calling anything, and compare every claim with the archive.

    Raises:
        ValueError: a tensor claims more than its storage, or something would be allocated.
    """

    def sizes_only(key: str, dtype: torch.dtype, count: int) -> Tensor:
        info = archive.entries.get(f"{archive.folder}data/{key}")
        needed = count * dtype.itemsize
        if info is None:
            raise ValueError(f"storage {key} is missing")
        if not 0 <= needed <= info.file_size:
            raise ValueError(f"storage {key} holds {info.file_size} bytes, not {needed}")
        return torch.empty(needed, dtype=torch.uint8, device="meta").view(dtype)

    most = max(_SMALL, archive.length)
    try:
        InertUnpickler(archive.read("data.pkl"), sizes_only, most).load()
    except UNREADABLE as error:
        raise ValueError(f"damaged or refused: {error}") from error


def _load(source: str | BufferedReader, map_location: Any, mmap: bool = False) -> Any:
    if not isinstance(source, str):
        source.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*TorchScript.*")
            return torch.load(source, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        # torch names the first class that it does not know, in the midst of advice to trust it.
        name = re.search(r"GLOBAL ([\w.]+)|class (\S+)", str(error))
        what = f" ({name[1] or name[2]})" if name else ""
        raise ValueError(
            f"refused: it holds pickled objects{what} beside tensors and plain values; nothing "
            "was executed"
        ) from error
    except (RuntimeError, LookupError, EOFError, TypeError, AttributeError) as error:
        first = str(error).splitlines()[:1] or [type(error).__name__]
        raise ValueError(f"cannot be loaded ({first[0]})") from error
