"""Reads files written by ``torch.save`` without executing anything that is pickled in them."""

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn

import torch
from torch import Tensor

from lightning_prune.files.torch_zip import TorchZip

# What a torn or forged stream makes the unpickler raise; none of it is a fault of the caller.
UNREADABLE = (
    pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, LookupError,
    MemoryError, NotImplementedError, RecursionError, RuntimeError, TypeError, ValueError,
)  # fmt: skip

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


class Record:
    """Stands for an object of an unknown class or the result of an unknown function.

    Attributes:
        path: Dotted name of the class or function, as the file has it.
        arguments: What it was called with.
        state: What it would have been given as its state, or None.
    """

    path = ""

    def __init__(self, *arguments: Any, **options: Any):
        self.arguments = (*arguments, *options.items())
        self.state: Any = None
        self.items: list[Any] = []

    def __new__(cls, *arguments: Any, **options: Any) -> "Record":
        """Create the record with all fields, since unpickling may skip the initialiser."""
        record = super().__new__(cls)
        Record.__init__(record, *arguments, **options)
        return record

    def __call__(self, *arguments: Any, **options: Any) -> "Record":
        """Stand for the result of a call, which is not made."""
        return Record(self, *arguments, **options)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        """Keep an item of a pickled list."""
        self.items.append(value)

    def extend(self, values: Any) -> None:
        """Keep items of a pickled list."""
        self.items.extend(values)

    def add(self, value: Any) -> None:
        """Keep an item of a pickled set."""
        self.items.append(value)

    @property
    def attributes(self) -> dict[str, Any]:
        """The state as a dict of attributes; empty where it is anything else."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:
            state = {**(state[0] or {}), **(state[1] or {})}
        return state if isinstance(state, dict) else {}


class _Storage(NamedTuple):
    data: Tensor
    spare: int = 0  # bytes that a tensor may have through strides of zero


def _rebuild(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """Make a tensor out of a storage, refusing sizes that the storage does not hold."""
    size, stride = tuple(size), tuple(stride)
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or len(size) != len(stride):
        raise ValueError("a tensor without a storage of its own")
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError(f"a tensor of size {size} and stride {stride}")
    available, item = storage.data.numel(), storage.data.dtype.itemsize
    count, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        count *= length
        last += (length - 1) * step if length else 0
    if count > max(available, storage.spare // item) or (count and last >= available):
        raise ValueError(f"a tensor of size {size}, larger than the {available} numbers stored")
    return storage.data.as_strided(size, stride, offset)


def _rebuild_v3(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    dtypes = [value for value in rest if isinstance(value, torch.dtype)]
    if not dtypes or not isinstance(storage, _Storage):
        raise ValueError("a tensor without a known type")
    typed = _Storage(storage.data.view(dtypes[0]), storage.spare)
    return _rebuild(typed, offset, size, stride)


def _first(value: Any, *_: Any) -> Any:
    return value


def _rebuild_typed(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    # Parameters and buffers that carry attributes of their own; the attributes are dropped.
    known = set(_FUNCTIONS.values())
    return function(*arguments) if function in known else Record(function, kind, arguments)


def _reconstruct(kind: Any, *_: Any) -> Record:
    return kind() if isinstance(kind, type) and issubclass(kind, Record) else Record(kind)


def _rebuild_bytes(*arguments: Any) -> Record:
    # bytearray(10**12) would allocate as much; torch.load(weights_only=True) calls it too.
    if arguments and isinstance(arguments[0], int):
        raise ValueError(f"a buffer of {arguments[0]} bytes without content")
    return Record(*arguments)


def _make_tensor(*_: Any) -> NoReturn:
    # As above: torch.FloatTensor(10**12).
    raise ValueError("a tensor that is made by a call, not stored")


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_v3,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_typed,
    ("copyreg", "_reconstructor"): _reconstruct,
    ("builtins", "bytearray"): _rebuild_bytes,
}
_CONTAINERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("torch", "Size"): tuple,
}
_PYTHON2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class InertUnpickler(pickle._Unpickler):
    """Knows tensors, storages and plain containers; everything else becomes a ``Record``.

    Pure Python on purpose: the memo is a dict, so that a hostile index cannot allocate gigabytes.

    Args:
        data: The pickle.
        load: Returns the storage of a key, a type and a count of numbers.
        spare: Bytes that a tensor may have though its storage has less (strides of zero).

    Raises:
        ValueError: the stream is torn or asks for the registry of extensions.
    """

    def __init__(
        self, data: bytes, load: Callable[[str, torch.dtype, int], Tensor], spare: int = 0
    ):
        _check_stream(data)
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._load = load
        self._spare = spare
        self._classes: dict[str, type[Record]] = {}

    stack: list[Any]

    def load_build(self) -> None:
        """Give a record its state; anything else (``OrderedDict`` metadata) stays as it is."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Record):
            self.stack[-1].__setstate__(state)

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or function; never the thing itself."""
        module = _PYTHON2_MODULES.get(module, module)
        if (module, name) in _FUNCTIONS:
            return _FUNCTIONS[module, name]
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module.startswith("torch") and name.endswith("Tensor"):
            return _make_tensor
        path = f"{module}.{name}"
        if path not in self._classes:
            self._classes[path] = type("Record", (Record,), {"path": path})
        return self._classes[path]

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that a tensor refers to."""
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise ValueError("a reference to something that is not a storage")
        _, dtype, key, _, count = pid[:5]
        if not isinstance(dtype, torch.dtype) or not isinstance(count, int):
            raise ValueError("a storage of an unknown type")
        return _Storage(self._load(str(key), dtype, count), self._spare)


def read_torch_zip(path: str | Path) -> Any:
    """Return what a file of ``torch.save`` holds, with unknown classes as inert records.

    No code of the file runs: classes and functions other than tensors, storages and plain
    containers are replaced by ``Record``, which stores what it is given and does nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is not of this format, or claims absurd sizes.
    """
    try:
        with Path(path).open("rb") as file:
            return _read(TorchZip(file))
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: {error}") from error


def _read(archive: TorchZip) -> Any:
    if archive.entries.get(f"{archive.folder}byteorder") and archive.read("byteorder") == b"big":
        raise ValueError("written on a big-endian machine: save it again on this one")
    storages: dict[str, Tensor] = {}

    def load(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in storages:
            if f"{archive.folder}data/{key}" not in archive.entries:
                raise ValueError(f"storage {key} is missing")
            content = bytearray(archive.read(f"data/{key}"))
            size = len(content)
            storages[key] = torch.frombuffer(content or bytearray(1), dtype=torch.uint8)[:size]
        needed = count * dtype.itemsize
        if not 0 <= needed <= storages[key].numel():
            raise ValueError(f"storage {key} holds {storages[key].numel()} bytes, not {needed}")
        return storages[key][:needed].view(dtype)

    return InertUnpickler(archive.read("data.pkl"), load).load()


def _check_stream(data: bytes) -> None:
    """Walk over the opcodes without running them: a torn stream ends here."""
    for opcode, _, position in pickletools.genops(data):
        if opcode.name in ("EXT1", "EXT2", "EXT4"):
            raise ValueError(f"{opcode.name} at byte {position}: extension registries are not read")
