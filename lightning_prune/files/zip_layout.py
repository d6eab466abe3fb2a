"""What a zip file has to look like for every reader to find the same members in it."""

import struct
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from lightning_prune.files.file_error import printable

MAX_DIRECTORY_BYTES = 16 * 2**20
"""Some 200,000 members."""

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL = struct.Struct("<4s5H3L2H")
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED = 0x1 | 0x20 | 0x40
"""Flag bits of encrypted or patched members."""
_DESCRIPTOR = 0x8
_UTF8 = 0x800
_ZIP64 = 1


def check_end(file: BinaryIO, length: int) -> tuple[int, int]:
    """Return the place of the directory and its number of members.

    The directory has to lie directly before the records that close the file: not elsewhere, with
    nothing in front of the archive and nothing behind it, and the records of both sizes have to
    say the same.

    Raises:
        ValueError: another reader could find another directory, or it is absurdly large.
    """
    signature, *disks, here, total, size, offset, comment = (
        _read(file, _END, length - _END.size) if length >= _END.size else (b"", *[0] * 7)
    )
    if signature != b"PK\x05\x06" or comment:
        raise ValueError("damaged or torn: the archive does not end with its directory")
    start = length - _END.size
    claims = [(here, total, size, offset, _FULL_16, _FULL_32)]
    if start >= _LOCATOR.size + _END_64.size:
        mark, disk, position, count = _read(file, _LOCATOR, start - _LOCATOR.size)
        if mark == b"PK\x06\x07":
            start -= _LOCATOR.size + _END_64.size
            mark_64, rest, _, _, *disks_64, here_64, total_64, size_64, offset_64 = _read(
                file, _END_64, start
            )
            if mark_64 != b"PK\x06\x06" or rest != _END_64.size - 12 or position != start:
                raise ValueError("damaged: the archive has two ends")
            disks += [disk, *disks_64, count - 1]
            claims.append((here_64, total_64, size_64, offset_64, -1, -1))
    return _agreed(claims, disks, start)


def _agreed(claims: Sequence[tuple[Any, ...]], disks: list[Any], start: int) -> tuple[int, int]:
    here, total, size, offset, *_ = claims[-1]
    for one in claims:
        wide = (here, total, size, offset)
        full = (one[4], one[4], one[5], one[5])
        if any(o not in (w, f) for o, w, f in zip(one[:4], wide, full, strict=True)):
            raise ValueError("damaged: the archive has two ends that differ")
    if size + offset != start or here != total or any(d not in (0, _FULL_16) for d in disks):
        raise ValueError("damaged: the archive does not begin where the file does, or has two ends")
    if size > MAX_DIRECTORY_BYTES:
        raise ValueError(f"a directory of {size} bytes, which no model needs: refused")
    return offset, total


def check_members(
    file: BinaryIO, infos: Sequence[zipfile.ZipInfo], directory: int, count: int
) -> None:
    """Check that every reader finds these members, under these names and with these bytes.

    Args:
        file: The archive.
        infos: The members as Python found them.
        directory: Where they end.
        count: How many there have to be.

    Raises:
        ValueError: it is not so; the message names the member.
    """
    if len(infos) != count:
        raise ValueError("damaged: the archive has more or fewer entries than it says")
    seen: set[str] = set()
    for info in infos:
        _check_name(info)
        # torch looks for names without regard to case.
        if info.filename.lower() in seen:
            raise ValueError(f"two entries share one name, {printable(info.filename)}: refused")
        seen.add(info.filename.lower())
        _check_claims(info, directory)
    if sum(info.file_size for info in infos) > directory:
        raise ValueError("its entries claim more bytes than the file has: refused")
    end = 0
    for info in sorted(infos, key=lambda one: one.header_offset):
        if info.header_offset < end:
            raise ValueError(f"{printable(info.filename)} overlaps another entry: refused")
        end = _data_start(file, info) + info.file_size
    if end > directory:
        raise ValueError("damaged: an entry reaches into the archive's directory")


def _check_name(info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    parts = name.removesuffix("/").split("/")
    fits = name == info.filename and name.isprintable() and "\\" not in name
    if not fits or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"an entry is named {printable(name)!r}, which torch never does: refused")


def _check_claims(info: zipfile.ZipInfo, directory: int) -> None:
    name = printable(info.filename)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, which torch.save never does: refused")
    if info.flag_bits & _ENCRYPTED:
        raise ValueError(f"{name} is encrypted, which torch.save never does: refused")
    end = info.header_offset + info.compress_size
    if info.file_size != info.compress_size or info.header_offset < 0 or end > directory:
        raise ValueError(f"{name} claims {info.file_size} bytes that the file has not")
    if info.volume not in (0, _FULL_16):
        raise ValueError(f"{name} is on another disk: refused")
    if sum(kind == _ZIP64 for kind, _ in _extra_fields(info.extra)) > 1:
        raise ValueError(f"{name} has two sizes: refused")


def _data_start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Return where a member's bytes begin, if it describes itself there as in the directory."""
    name = printable(info.filename)
    mark, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _read(
        file, _LOCAL, info.header_offset
    )
    own = file.read(name_length)
    extra = file.read(extra_length)
    raw = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
    if mark != b"PK\x03\x04" or own != raw or len(extra) != extra_length:
        raise ValueError(f"{name} is not where the directory says: damaged")
    later = bool(flags & _DESCRIPTOR)  # then the sizes stand behind the bytes
    wide = {_FULL_32} if any(kind == _ZIP64 for kind, _ in _extra_fields(extra)) else set()
    known = {info.file_size} | wide | ({0} if later else set())
    checks = {info.CRC} | ({0} if later else set())
    same = packed in known and size in known and crc in checks
    if not same or flags != info.flag_bits or method != info.compress_type:
        raise ValueError(f"{name} has two descriptions that differ: refused")
    return info.header_offset + _LOCAL.size + len(own) + len(extra)


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, place)
        yield kind, extra[place + 4 : place + 4 + size]
        place += 4 + size


def _read(file: BinaryIO, form: struct.Struct, position: int) -> tuple[Any, ...]:
    file.seek(position)
    content = file.read(form.size)
    if len(content) < form.size:
        raise ValueError("damaged or torn: it ends within a header")
    return form.unpack(content)
