"""An array inside an .npz or HDF5 file that is read where it is needed."""

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

HDF5 = (".h5", ".hdf5")
SUFFIXES = (".npz", *HDF5)
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    SyntaxError,
    RuntimeError,
    MemoryError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What files that are damaged, or of another kind, end in."""


class FileArray:
    """Slices of one array of a file, opened again in every process.

    Uncompressed members of .npz files are mapped into memory, compressed ones are read whole, once
    in each process; HDF5 data sets are read slice by slice. Only path and name are pickled.

    Attributes:
        path: The file.
        name: Of the array in it.
        shape: Of the array.
        dtype: Of the array.

    Args:
        path: .npz, .h5 or .hdf5 file.
        name: Of the array in it.

    Raises:
        KeyError: the file has no such array.
        OSError: the file cannot be read.
        ValueError: the array holds Python objects.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._process: int | None = None
        self._opened: Any = None
        opened = self._open()
        self.shape: tuple[int, ...] = tuple(opened.shape)
        self.dtype = np.dtype(opened.dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a slice, or the elements of an index array where the file allows it."""
        return np.asarray(self._open()[key])

    def __len__(self) -> int:
        """Return the first dimension."""
        return self.shape[0]

    def in_memory(self) -> np.ndarray | None:
        """Return the array where it can be indexed like any other, else None."""
        opened = self._open()
        return opened if isinstance(opened, np.ndarray) else None

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind."""
        return {**self.__dict__, "_process": None, "_opened": None}

    def _open(self) -> Any:
        # an HDF5 handle must not be shared with a forked process; the others may
        if self._opened is None or (
            self._process != os.getpid() and isinstance(self._opened, h5py.Dataset)
        ):
            self._process = os.getpid()
            self._opened = _opened(self.path, self.name)
        return self._opened


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays of a file.

    Raises:
        OSError: the file cannot be read.
    """
    if path.suffix.lower() in HDF5:
        with h5py.File(path, "r") as file:
            return [name for name, each in file.items() if isinstance(each, h5py.Dataset)]
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _opened(path: Path, name: str) -> Any:
    if path.suffix.lower() in HDF5:
        return h5py.File(path, "r")[name]
    mapped = _mapped(path, f"{name}.npy")
    if mapped is not None:
        return mapped
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[name]


def _mapped(path: Path, member: str) -> np.ndarray | None:
    """Map an uncompressed member of a zip file into memory; None where it is compressed."""
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(member)
        if entry.compress_type != zipfile.ZIP_STORED:
            return None
    with path.open("rb") as file:
        # the local header's lengths are its own: 30 bytes, the name, the extra field
        file.seek(entry.header_offset + 26)
        name_length, extra_length = (int.from_bytes(file.read(2), "little") for _ in range(2))
        file.seek(entry.header_offset + 30 + name_length + extra_length)
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise ValueError("the array holds Python objects")
        if not all(shape):
            return np.empty(shape, dtype)
        order = "F" if fortran else "C"
        return np.memmap(path, dtype, "r", file.tell(), shape, order)  # type: ignore[call-overload, no-any-return]
