"""Files that nobody should load, and a limit on the memory in which they have to be refused."""

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

HEAD = b"\x80\x02"


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def tensor_pickle(
    key: str = "0", count: int = 4, size: Any = (4,), stride: Any = (1,), offset: int = 0
) -> bytes:
    """The pickle of ``{"t": tensor}`` with the given claims about a float32 tensor."""

    class Claim:
        claim = ("storage", torch.FloatStorage, key, "cpu", count)

    class Pickler(pickle._Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return obj.claim if isinstance(obj, Claim) else None

    buffer = io.BytesIO()
    claimed = Call(torch._utils._rebuild_tensor_v2, Claim(), offset, size, stride, False, {})
    Pickler(buffer, 2).dump({"t": claimed})
    return buffer.getvalue()


def write_archive(
    path: Path,
    data: bytes | None = None,
    storages: Any = (("0", bytes(16)),),
    compression: int = zipfile.ZIP_STORED,
    change: Callable[[zipfile.ZipFile], None] | None = None,
) -> Path:
    """An archive as of ``torch.save``, whose directory may be changed before it is written."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", tensor_pickle() if data is None else data)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
        for key, content in storages:
            archive.writestr(f"archive/data/{key}", content)
        if change is not None:
            change(archive)
    return path


def overlap(archive: zipfile.ZipFile) -> None:
    """Let a thousand members be the same bytes."""
    last = archive.filelist[-1]
    for number in range(1000):
        again = zipfile.ZipInfo(f"archive/data/{number + 1}")
        again.file_size = again.compress_size = last.file_size
        again.CRC, again.header_offset = last.CRC, last.header_offset
        archive.filelist.append(again)


def claim_size(archive: zipfile.ZipFile) -> None:
    """Let the last member have a terabyte."""
    archive.filelist[-1].file_size = archive.filelist[-1].compress_size = 10**12


def rename_last(archive: zipfile.ZipFile) -> None:
    """Let two members have one name."""
    archive.filelist[-1].filename = archive.filelist[-1].orig_filename = "archive/version"


def hostile_files(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield a name, a file and what its refusal must say. Some would create ``sprung``."""

    def path(name: str) -> Path:
        return folder / f"{name}.ckpt"

    def saved(name: str, value: Any) -> Path:
        torch.save({"state_dict": {"a": torch.ones(2)}, "x": value}, path(name))
        return path(name)

    mark = folder / "sprung"
    yield "system", saved("system", Call(os.system, f"touch {mark}")), "pickled objects"
    yield "eval", saved("eval", Call(eval, f"open({str(mark)!r}, 'w')")), "pickled objects"
    yield "bytearray", saved("bytearray", Call(bytearray, 10**12)), "without content"
    yield "tensor", saved("tensor", Call(torch.FloatTensor, 10**12)), "made by a call"
    bomb = write_archive(path("bomb"), None, [("0", bytes(10**7))], zipfile.ZIP_DEFLATED)
    yield "bomb", bomb, "is compressed"
    many = write_archive(path("many"), None, [("0", bytes(10**6))], change=overlap)
    yield "many", many, "more bytes than the file has"
    yield "claim", write_archive(path("claim"), change=claim_size), "that the file has not"
    twice = write_archive(path("twice"), change=rename_last)
    yield "twice", twice, "share one name"
    for name, claims, message in [
        ("expanded", {"size": (10**15,), "stride": (0,)}, "larger than"),
        ("large", {"size": (10**15,)}, "larger than"),
        ("outside", {"offset": 2}, "larger than"),
        ("count", {"count": 10**15}, "holds 16 bytes"),
        ("elsewhere", {"key": "../secret"}, "is missing"),
    ]:
        yield name, write_archive(path(name), tensor_pickle(**claims)), message
    text = b"X\xff\xff\xff\x7fabc."
    yield "string", write_archive(path("string"), HEAD + text), "damaged or refused"
    yield "registry", write_archive(path("registry"), HEAD + b"\x82\x01."), "EXT1"
    second = write_archive(path("second"))
    second.write_bytes(second.read_bytes() + write_archive(path("other")).read_bytes())
    yield "second", second, "damaged"
    comment = write_archive(path("comment"), change=lambda a: setattr(a, "comment", b"hello"))
    yield "comment", comment, "damaged"
    for name, data, message in pickles():
        yield name, write_archive(path(name), data), message
    yield from archives(folder)
    os.mkfifo(path("pipe"))
    yield "pipe", path("pipe"), "a named pipe"
    path("loop").symlink_to("loop.ckpt")
    yield "loop", path("loop"), "leads back to itself"
    path("gone").symlink_to("no\nwhere")
    yield "gone", path("gone"), r"a link to 'no\\nwhere'"
    path("pointer").write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    yield "pointer", path("pointer"), "Git LFS pointer to 9 bytes, not a checkpoint"
    torch.save({"a": torch.ones(1)}, path("old"), _use_new_zipfile_serialization=False)
    yield "old", path("old"), "before 1.6"
    path("text").write_text("not a checkpoint at all")
    yield "text", path("text"), "a text of 23 bytes"
    path("empty").touch()
    yield "empty", path("empty"), "an empty file"


def word(text: str) -> bytes:
    """The opcode of a text."""
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def entry(value: bytes) -> bytes:
    """The pickle of ``{"t": value}``."""
    return HEAD + b"}" + word("t") + value + b"s."


def call(name: str, arguments: bytes) -> bytes:
    """The opcodes of a call."""
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode() + arguments + b"R"


STORAGE = b"(" + word("storage") + b"ctorch\nFloatStorage\n" + word("0") + word("cpu") + b"K\x04tQ"
PLAIN = b"K\x00K\x04\x85K\x01\x85\x89}"  # offset, size, stride, no gradient, no hooks
TENSOR = call("torch._utils._rebuild_tensor_v2", b"(" + STORAGE + PLAIN + b"t")
MODULUS = 2**61 - 1  # of Python's hash of numbers


def claimed(rest: bytes, storage: bytes = STORAGE) -> bytes:
    """The pickle of a tensor with other opcodes behind its storage."""
    return entry(call("torch._utils._rebuild_tensor_v2", b"(" + storage + rest + b"t"))


def complex_keys() -> bytes:
    """Opcodes of keys of one hash, each with None."""
    numbers = (
        struct.pack(">d", 1e6 * 1000003 - 1000003.0 * k) + b"G" + struct.pack(">d", float(k))
        for k in range(1000)
    )
    function = b"cbuiltins\ncomplex\n"
    return b"".join(function + b"G" + pair + b"\x86RN" for pair in numbers)


def pickles() -> Iterator[tuple[str, bytes, str]]:
    """Yield a name, a pickle and what its refusal must say: walks without an end, odd claims."""
    shared = b"]" + b"q\x00h\x00\x86" * 60
    yield "deep key", HEAD + b"}K\x01" + b"\x85" * 300_000 + b"K\x01s.", "as a key"
    yield "deep value", entry(b"K\x01" + b"\x85" * 300_000), "nested more than"
    yield "deep lists", entry(b"]" * 10**5 + b"a" * (10**5 - 1)), "nested more than"
    yield "shared", entry(shared), "shared again and again"
    yield "shared key", HEAD + b"}" + shared + b"K\x01s.", "as a key"
    yield "shared size", claimed(b"K\x00" + shared + b"\x85K\x01\x85\x89}"), "is no number from 0"
    yield "itself", entry(b"]q\x00h\x00a"), "holds itself"
    yield "steps", HEAD + b"N0N.", "POP at byte"
    yield "long", claimed(b"K\x00\x8a\xff" + b"\x7f" * 255 + b"\x85K\x01\x85\x89}"), "is no number"
    yield "long 4", entry(b"\x8b" + struct.pack("<i", 2 * 10**6) + b"\x7f" * 2 * 10**6), "LONG4"
    keys = b"".join(
        b"\x8a" + bytes([len(n)]) + n + b"N"
        for n in ((k * MODULUS).to_bytes(20, "little") for k in range(5, 3000))
    )
    yield "colliding keys", HEAD + b"}(" + keys + b"u.", "chosen to have the same hash"
    yield "complex keys", HEAD + b"}(" + complex_keys() + b"u.", "chosen to have the same hash"
    yield "wide key", HEAD + b"}(" + b"K\x01" * 99 + b"tNs.", "as a key"
    yield "tensor key", HEAD + b"}" + TENSOR + b"Ns.", "a Tensor as a key"
    yield "negative", claimed(b"K\x00J\xff\xff\xff\xff\x85K\x01\x85\x89}"), "is no number"
    yield (
        "float size",
        claimed(b"K\x00G" + struct.pack(">d", 4.0) + b"\x85K\x01\x85\x89}"),
        "no number",
    )
    yield "truth", claimed(b"\x88K\x03\x85K\x01\x85\x89}"), "no number"
    big = b"\x8a\x08" + (2**62).to_bytes(8, "little")
    yield "stride", claimed(b"K\x00K\x01\x85" + big + b"\x85\x89}"), "absurd strides"
    yield "offset", claimed(big + b"K\x00\x85K\x01\x85\x89}"), "absurd strides"
    yield (
        "empty tensor",
        claimed(b"K\x00(K\x00" + big * 2 + b"t(K\x01K\x01K\x01t\x89}"),
        "absurd strides",
    )
    yield (
        "dimensions",
        claimed(b"K\x00(" + b"K\x01" * 99 + b"t(" + b"K\x01" * 99 + b"t\x89}"),
        "short tuple",
    )
    yield "hooks", claimed(b"K\x00K\x04\x85K\x01\x85\x89}K\x01K\x02s"), "hooks"
    yield "gradient", claimed(b"K\x00K\x04\x85K\x01\x85K\x01}"), "gradient"
    marks = PLAIN + b"}" + word("conj") + b"\x88s"
    yield "conjugate", claimed(marks), "marks of complex"
    again = STORAGE.replace(b"K\x04tQ", b"K\x02tQ")
    two = call(
        "torch._utils._rebuild_tensor_v2", b"(" + again + PLAIN.replace(b"\x04", b"\x02") + b"t"
    )
    yield "two ways", entry(TENSOR + two + b"\x86"), "described in two ways"
    odd = STORAGE.replace(word("0"), b"K\x00")
    yield "number as a key", claimed(PLAIN, odd), "not a storage"
    yield "text of a class", entry(b"cos\n" + b"x\x1b" * 500 + b"\n)R"), r"pickled objects \(os\.x"
    parameter = b"(" + TENSOR + b"\x89}}" + word("data") + TENSOR + b"st"
    name = "torch._utils._rebuild_parameter_with_state"
    yield "other data", entry(call(name, parameter)), "replace what it is"
    yield (
        "quantized",
        entry(call("torch._utils._rebuild_qtensor", b")")),
        "of a kind that is not read",
    )
    yield "wrapper", entry(call("torch._utils._rebuild_wrapper_subclass", b")")), "not read"
    sparse = b"(" + call("torch.serialization._get_layout", word("torch.sparse_coo") + b"\x85")
    sparse += b"(" + TENSOR + TENSOR + big + b"\x85tt"
    yield (
        "sparse",
        entry(call("torch._utils._rebuild_sparse_tensor", sparse)),
        "no table of numbers",
    )
    meta = b"(ctorch\nfloat32\n" + big + b"\x85K\x01\x85\x89t"
    yield (
        "meta",
        entry(call("torch._utils._rebuild_meta_tensor_no_storage", meta)),
        "absurd strides",
    )
    yield "state", entry(TENSOR + TENSOR + b"b"), "given another state"
    ordered = call("collections.OrderedDict", b")")
    yield "items", entry(ordered + b"}" + word("items") + b"Nsb"), "given another state"
    yield "versions", entry(ordered + b"}" + word("_metadata") + b"Nsb"), "versions of layers"
    layer = b"}" + word("assign_to_params_buffers") + b"\x88s"
    metadata = b"}" + word("_metadata") + b"}" + word("net") + layer + b"ssb"
    yield "assign", entry(ordered + metadata), "types of other parameters"
    yield "set of a tensor", entry(call("builtins.set", TENSOR + b"\x85")), "a set made of a Tensor"
    yield "encoding", entry(call("_codecs.encode", word("x") + word("idna") + b"\x86")), "encoding"
    yield (
        "device",
        entry(call("torch.device", word("x" * 999) + b"\x85")),
        "a device without a name",
    )
    yield "item of a tensor", entry(TENSOR + b"K\x00K\x00s"), "a value set in a Tensor"
    yield "protocol", b"\x80\x04\x95" + struct.pack("<Q", 2) + b"N.", "FRAME at byte 2"


def _rewritten(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, content)
    return path


def _patched(path: Path, mark: bytes, place: int, new: bytes) -> Path:
    """Change bytes at a place behind the first mark of a file."""
    data = bytearray(write_archive(path).read_bytes())
    start = data.index(mark) + place
    data[start : start + len(new)] = new
    path.write_bytes(data)
    return path


def archives(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield a name, a file in which two readers find different members, and what is said of it."""

    def path(name: str) -> Path:
        return folder / f"{name}.ckpt"

    good, evil = ("archive/data.pkl", tensor_pickle()), entry(call("os.system", b")"))
    rest = [("archive/version", b"3\n"), ("archive/data/0", bytes(16))]
    order = ("archive/byteorder", b"big")
    yield "big", _rewritten(path("big"), good, *rest, order), "big-endian"
    order = ("archive/byteorder", b"middle" * 99)
    yield "middle", _rewritten(path("middle"), good, *rest, order), "neither little nor big"
    upper = ("archive/DATA.PKL", evil)
    yield "upper", _rewritten(path("upper"), upper, good, *rest), "share one name"
    folders = ("Archive/data.pkl", evil)
    yield "folder", _rewritten(path("folder"), folders, good, *rest), "share one name"
    nul = ("archive/data.pkl\0x", evil)
    yield "nul", _rewritten(path("nul"), nul, good, *rest), "named .archive/data"
    first = ("other/x", b"")
    yield "first", _rewritten(path("first"), first, good, *rest), "not in one folder"
    for name in ("/archive/x", "archive/../x", "archive//x", "archive\\x", "archive/\n"):
        number = f"name {ord(name[-2])} {len(name)}"
        yield number, _rewritten(path(number), good, *rest, (name, b"")), "an entry is named"
    yield "rootless", _rewritten(path("rootless"), ("data.pkl", good[1])), "not in one folder"
    local, central, end = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
    yield (
        "local name",
        _patched(path("local name"), local, 30, b"Archive"),
        "not where the directory",
    )
    yield "local size", _patched(path("local size"), local, 22, b"\x01"), "two descriptions"
    yield "local crc", _patched(path("local crc"), local, 14, b"\x01"), "two descriptions"
    yield "local flags", _patched(path("local flags"), local, 6, b"\x08"), "two descriptions"
    yield "local method", _patched(path("local method"), local, 8, b"\x08"), "two descriptions"
    yield "flags", _patched(path("flags"), central, 8, b"\x01"), "is encrypted"
    yield "method", _patched(path("method"), central, 10, b"\x63"), "is compressed"
    yield "disk", _patched(path("disk"), central, 34, b"\x07"), "on another disk"
    yield "entries", _patched(path("entries"), end, 8, b"\x01\x00\x01"), "more or fewer entries"
    yield "disks", _patched(path("disks"), end, 4, b"\x01"), "has two ends"
    yield "extra", _patched(path("extra"), central, 42, b"\x04"), "not where|overlaps"
    front = write_archive(path("front"))
    front.write_bytes(b"PK\x03\x04" + bytes(60) + front.read_bytes())
    yield "front", front, "does not begin where the file does"
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
    data = write_archive(path("wide")).read_bytes()
    path("wide").write_bytes(data[:-22] + bytes(56) + locator + data[-22:])
    yield "wide", path("wide"), "has two ends"


@contextmanager
def little_memory(more: int = 300 * 2**20) -> Iterator[None]:
    """Let the process have so many bytes of address space more; where that can be limited."""
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
