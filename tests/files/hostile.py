"""Files that nobody should load, and a limit on the memory in which they have to be refused."""

import io
import os
import pickle
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
    torch.save({"a": torch.ones(1)}, path("old"), _use_new_zipfile_serialization=False)
    yield "old", path("old"), "before 1.6"
    path("text").write_text("not a checkpoint at all")
    yield "text", path("text"), "a text of 23 bytes"
    path("empty").touch()
    yield "empty", path("empty"), "an empty file"


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
