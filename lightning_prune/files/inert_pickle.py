"""Reads files written by ``torch.save`` without executing anything that is pickled in them."""

import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_prune.files import plain_values, stored_tensor
from lightning_prune.files.bounded_unpickler import BoundedUnpickler
from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.file_error import printable
from lightning_prune.files.foreign_file import describe_foreign
from lightning_prune.files.open_regular import NotRegularError, open_regular
from lightning_prune.files.record import Record as Record
from lightning_prune.files.stored_tensor import Storage
from lightning_prune.files.torch_zip import TorchZip

# What a torn or forged stream makes the unpickler raise; none of it is a fault of the caller.
UNREADABLE = (
    pickle.UnpicklingError, ArithmeticError, AssertionError, AttributeError, EOFError, LookupError,
    MemoryError, NotImplementedError, RecursionError, RuntimeError, TypeError, ValueError,
)  # fmt: skip

_STEPS = 8_000_000
_BYTES_A_STEP = 8  # of the rest of the file: every tensor has some there
_MOST_CLASSES = 20_000
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_DTYPES = {
    name: value for name in dir(torch) if isinstance(value := getattr(torch, name), torch.dtype)
}
TENSORS = {
    "torch._utils._rebuild_tensor": stored_tensor.rebuild,
    "torch._utils._rebuild_tensor_v2": stored_tensor.rebuild,
    "torch._utils._rebuild_tensor_v3": stored_tensor.rebuild_v3,
}


def _first(value: Any, *_: Any) -> Any:
    return value


def _rebuild_typed(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    # Parameters and buffers that carry attributes of their own; the attributes are dropped.
    known = isinstance(function, FunctionType) and type(arguments) is tuple
    return function(*arguments) if known else Record(function, kind, arguments)


def _reconstruct(kind: Any, *_: Any) -> Record:
    return kind() if isinstance(kind, type) and issubclass(kind, Record) else Record(kind)


class InertUnpickler(BoundedUnpickler):
    """Knows tensors, storages and plain values; everything else becomes a ``Record``.

    Args:
        data: The pickle.
        load: Returns the storage of a key, a type and a count of numbers.
        spare: Bytes that a tensor may have though its storage has less (strides of zero).
        rest: Bytes of the file beside the pickle, by which its steps are limited.

    Raises:
        ValueError: the stream is torn, too long or asks for the registry of extensions.
    """

    allowed: ClassVar[frozenset[int] | None] = None

    def __init__(
        self,
        data: bytes,
        load: Callable[[str, torch.dtype, int], Tensor],
        spare: int = 0,
        rest: int = 0,
    ):
        super().__init__(data, _STEPS + rest // _BYTES_A_STEP, self.allowed)
        self._load = load
        self._spare = spare
        self._classes: dict[str, type[Record]] = {}
        self._claims: dict[str, tuple[torch.dtype, int]] = {}
        self._known = self.functions()

    def functions(self) -> dict[str, Any]:
        """Return what stands for the functions that are known, by full name."""
        return {
            **TENSORS,
            "torch._utils._rebuild_parameter": _first,
            "torch._utils._rebuild_parameter_with_state": _first,
            "torch._utils._rebuild_meta_tensor_no_storage": stored_tensor.rebuild_meta,
            "torch._utils._rebuild_sparse_tensor": stored_tensor.rebuild_sparse,
            "torch._tensor._rebuild_from_type_v2": _rebuild_typed,
            "torch.serialization._get_layout": plain_values.make_layout,
            "torch.Size": plain_values.make_size,
            "torch.device": plain_values.make_device,
            "collections.OrderedDict": self.keys.make_ordered_dict,
            "collections.Counter": self.keys.make_counter,
            "builtins.set": self.keys.make_set,
            "builtins.frozenset": self.keys.make_frozenset,
            "builtins.complex": plain_values.make_complex,
            "builtins.bytearray": plain_values.make_bytearray,
            "_codecs.encode": plain_values.make_bytes,
            "copyreg._reconstructor": _reconstruct,
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or function; never the thing itself."""
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        path = f"{module}.{name}"
        owner, _, last = path.rpartition(".")
        if path in self._known:
            return self._known[path]
        if owner in ("torch", "torch.storage") and last in _STORAGES:
            return _STORAGES[last]
        if owner == "torch" and last in _DTYPES:
            return _DTYPES[last]
        if owner == "torch" and isinstance(getattr(torch, last, None), torch.layout):
            return getattr(torch, last)
        if path.startswith("torch") and last.endswith("Tensor"):
            return stored_tensor.make_tensor
        return self.unknown(path)

    def unknown(self, path: str) -> Any:
        """Return what stands for any other class or function."""
        if path not in self._classes:
            if len(self._classes) >= _MOST_CLASSES:
                raise ValueError(f"more than {_MOST_CLASSES} classes")
            self._classes[path] = type("Record", (Record,), {"path": path})
        return self._classes[path]

    def persistent_load(self, pid: Any) -> Storage:
        """Return the storage that a tensor refers to."""
        if type(pid) is not tuple or len(pid) < 5 or type(pid[0]) is not str:
            raise ValueError("a reference to something that is not a storage")
        kind, dtype, key, place, count = pid[:5]
        if kind != "storage" or type(key) is not str or type(place) is not str:
            raise ValueError("a reference to something that is not a storage")
        if type(dtype) is not torch.dtype or not plain_values.is_size(count):
            raise ValueError("a storage of an unknown type or size")
        if self._claims.setdefault(key, (dtype, count)) != (dtype, count):
            # torch takes the first claim for all.
            raise ValueError(f"storage {printable(key)} is described in two ways")
        return Storage(self._load(key, dtype, count), self._spare)


def read_torch_zip(path: str | Path) -> Any:
    """Return what a file of ``torch.save`` holds, with unknown classes as inert records.

    No code of the file runs: classes and functions other than tensors, storages and plain
    containers are replaced by ``Record``, which stores what it is given and does nothing.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: a ``ValueError``: the file is damaged, is not of this format (the message
            says what it is), or claims absurd sizes.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            return _read(TorchZip(file))
    except FileNotFoundError:
        raise
    except (*UNREADABLE, OSError) as error:
        why = describe_foreign(path) or f"cannot be read as a checkpoint: {explain(error)}"
        raise CheckpointError(path, why) from error


def explain(error: BaseException) -> str:
    """Return the first line of an error, of bounded length."""
    if isinstance(error, NotRegularError):
        return printable(str(error.strerror), 300)
    if isinstance(error, OSError):
        return f"unreadable ({error.strerror or type(error).__name__})"
    return printable((str(error).strip() or type(error).__name__).splitlines()[0], 300)


def _read(archive: TorchZip) -> Any:
    archive.check_byte_order()
    storages: dict[str, Tensor] = {}

    def load(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in storages:
            if f"{archive.folder}data/{key}" not in archive.entries:
                raise ValueError(f"storage {printable(key)} is missing")
            content = bytearray(archive.read(f"data/{key}"))
            size = len(content)
            storages[key] = torch.frombuffer(content or bytearray(1), dtype=torch.uint8)[:size]
        needed = count * dtype.itemsize
        if needed > storages[key].numel():
            raise ValueError(
                f"storage {printable(key)} holds {storages[key].numel()} bytes, not {needed}"
            )
        return storages[key][:needed].view(dtype)

    data = archive.read("data.pkl")
    return InertUnpickler(data, load, rest=archive.length - len(data)).load()
