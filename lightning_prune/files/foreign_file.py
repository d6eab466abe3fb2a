"""Names files that are not what their name says, and what to do about it."""

import os
import re
from io import BufferedReader
from pathlib import Path

from lightning_prune.files.magic_bytes import CONVERT, MAGIC, OTHER, UNPACK, Expected
from lightning_prune.files.open_regular import NotRegularError, open_regular
from lightning_prune.files.pointer_text import TextKind, pointer_text

_HEAD = 4096
_TAIL = 1 << 20
_WORDS = {
    "weights": "weights", "checkpoint": "a checkpoint", "image": "an image", "video": "a video",
    "annotations": "annotations", "recording": "a recording", "onnx": "an ONNX model",
}  # fmt: skip
_UNFINISHED = {
    ".aria2", ".crdownload", ".download", ".filepart", ".incomplete", ".opdownload", ".part",
    ".partial", ".!ut", ".!qb",
}  # fmt: skip
_AGAIN = "copy or fetch it again and compare its size"
# The number at the beginning of what torch.save wrote before 1.6.
_OLD_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_INSIDE = (
    (rb"/constants\.pkl", "a TorchScript archive", "give the state dict of the model that it was "
     "exported from"),
    (rb"serialized_exported_program|/archive_format", "a program of torch.export", "give the state "
     "dict of the model that it was exported from"),
    (rb"\.npy", "NumPy arrays (.npz)", CONVERT),
    (rb"model\.weights\.h5", "a Keras model", CONVERT),
    (rb"\[Content_Types\]\.xml", "an Office document", OTHER),
    (rb"\.mlmodel", "a Core ML model", CONVERT),
    (rb"AndroidManifest|META-INF/", "a program package", OTHER),
)  # fmt: skip


def describe_foreign(path: str | Path, expected: Expected = "weights") -> str | None:
    r"""Return what a file really is, and what to do; None where nothing speaks against its use.

    Looks at the kind of the file, its first 4 kilobytes and, of zip archives, at the last
    megabyte; never waits on pipes. None does not mean that the file is intact.

    Args:
        path: The file. None is returned where nothing has this name.
        expected: What it is to be used as.

    Returns:
        A sentence without the path and a full stop, to stand behind ``f"{path}: "``.

    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp(), "best.pt")
    >>> _ = path.write_text("version https://git-lfs.github.com/spec/v1\nsize 6243242\n")
    >>> describe_foreign(path)
    'a Git LFS pointer to 6,243,242 bytes, not weights: run `git lfs install && git lfs pull`...'
    """
    path = Path(path)
    word = _WORDS[expected]
    try:
        with open_regular(path) as file:
            kind = _kind(path, file, "weights" if expected == "checkpoint" else expected)
    except FileNotFoundError:
        return None
    except NotRegularError as error:
        return str(error.strerror)
    except OSError as error:
        return f"unreadable ({error.strerror or error})"
    return None if kind is None else f"{kind.what}, not {word}: {kind.advice}"


def _kind(path: Path, file: BufferedReader, expected: str) -> TextKind | None:
    head = file.read(_HEAD)
    size = os.fstat(file.fileno()).st_size
    if not head:
        # An image without objects has an empty label file.
        return (
            None
            if expected == "annotations"
            else TextKind("an empty file: damaged or torn", _AGAIN)
        )
    if path.suffix.lower() in _UNFINISHED:
        return TextKind("an unfinished download", "let it finish, or fetch it again")
    if path.with_name(path.name + ".aria2").exists():
        return TextKind("an unfinished download of aria2", "let it finish")
    if not head.strip(b"\0"):
        return TextKind(f"{_extent(file, size)} zero bytes", f"the copy broke off: {_AGAIN}")
    if head.startswith(b"PK"):
        return _zip(path, file, size, expected)
    for magic in MAGIC:
        if magic.matches(head):
            return None if expected in magic.fits else TextKind(magic.what, magic.advice)
    return _model(path, head, size, expected) or _text(head, size, expected)


def _extent(file: BufferedReader, size: int) -> str:
    file.seek(max(0, size - _HEAD))
    return "nothing but" if not file.read(_HEAD).strip(b"\0") else "a file that begins with"


def _zip(path: Path, file: BufferedReader, size: int, expected: str) -> TextKind | None:
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0:
        return TextKind(
            f"the beginning of a zip archive ({size:,} bytes) without its end: damaged or torn",
            _AGAIN,
        )
    length = int.from_bytes(tail[end + 12 : end + 16], "little")
    directory = tail[max(0, end - length) : end] if length else tail[:end]
    file.seek(0)
    head = file.read(_HEAD)
    # The first name, and those of the last megabyte: torch writes its own around the storages.
    names = head[30 : 30 + int.from_bytes(head[26:28], "little")] + b"\n" + directory
    torch = re.search(rb"(?i)\bdata\.pkl", names) is not None
    for mark, what, advice in _INSIDE:
        if re.search(mark, names):
            if torch and b"pkl" not in mark:
                continue
            fits = expected == "recording" and b"npy" in mark
            return None if fits else TextKind(what, advice)
    if torch:
        if expected == "weights" and path.suffix.lower() != ".safetensors":
            return None
        advice = f"rename it to {path.stem}.pt" if expected == "weights" else OTHER
        return TextKind("a file of torch.save", advice)
    return TextKind("a zip archive that torch.save did not write", UNPACK)


def _model(path: Path, head: bytes, size: int, expected: str) -> TextKind | None:
    suffix = path.suffix.lower()
    if head[:1] == b"\x80" and head[1:2] in (b"\1", b"\2", b"\3", b"\4", b"\5"):
        if head.startswith(_OLD_TORCH, 2):
            if expected == "weights" and suffix != ".safetensors":
                return None
            return TextKind("a file of torch.save before 1.6", "save it again with this torch")
        return TextKind("a Python pickle that torch.save did not write", CONVERT)
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 0 < length <= 100_000_000:
        if length + 8 > size:
            return TextKind("the beginning of a safetensors file: damaged or torn", _AGAIN)
        if expected == "weights" and suffix == ".safetensors":
            return None
        advice = f"rename it to {path.stem}.safetensors" if expected == "weights" else OTHER
        return TextKind("a safetensors file", advice)
    return None


def _text(head: bytes, size: int, expected: str) -> TextKind | None:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return None
        text = head[: error.start].decode("utf-8-sig")
    if re.search(r"[\0-\x08\x0e-\x1a]", text):
        return None
    known = pointer_text(text)
    if known is not None or expected == "annotations":
        return known
    start = "".join(c if c.isprintable() else " " for c in text[:40]).strip()
    return TextKind(f"a text of {size:,} bytes that begins with {start!r}", OTHER)
