"""The archive that ``torch.save`` writes, checked before anything in it is used."""

import struct
import zipfile
from typing import Any, BinaryIO

MAX_PICKLE_BYTES = 256 * 2**20
"""The structure of a checkpoint without its tensors; real ones have some hundred kilobytes."""

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENCRYPTED = 0x1 | 0x20 | 0x40
"""Flag bits of encrypted or patched members."""


class TorchZip:
    """The members of an archive, each of which fits into the file.

    ``torch.save`` stores its members one after the other and uncompressed. Whatever else a zip
    file can be (compressed, two members of one name, several members of the same bytes, a second
    directory) only serves to make a reader allocate more than the file has, or to show two readers
    different contents.

    Args:
        file: Open for reading, as binary.

    Attributes:
        archive: The open archive.
        entries: Name -> member.
        folder: What every name begins with, with the slash.
        length: Bytes of the file.

    Raises:
        ValueError: it is no such archive; the message says why, without the name of the file.
    """

    def __init__(self, file: BinaryIO):
        self.length = file.seek(0, 2)
        file.seek(0)
        if file.read(2) != b"PK":
            raise ValueError(_no_archive(file, self.length))
        try:
            self.archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, struct.error, NotImplementedError, OverflowError) as error:
            raise ValueError(f"damaged or torn: {error}") from error
        _check_end(file, self.length)
        infos = self.archive.infolist()
        self.entries = {info.filename: info for info in infos}
        if len(self.entries) != len(infos):
            raise ValueError("two entries of the archive share one name: refused")
        for info in infos:
            _check_member(info, self.length)
        if sum(info.file_size for info in infos) > self.length:
            raise ValueError("its entries claim more bytes than the file has: refused")
        self.folder = self._find_folder()

    def _find_folder(self) -> str:
        pickles = [n for n in self.entries if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"expected one data.pkl in the archive, found {len(pickles)}")
        size = self.entries[pickles[0]].file_size
        if size > MAX_PICKLE_BYTES:
            raise ValueError(f"data.pkl has {size} bytes, which no structure of a model needs")
        return pickles[0].removesuffix("data.pkl")

    def read(self, name: str) -> bytes:
        """Return one member's bytes, whose checksum is compared.

        Raises:
            ValueError: they were altered.
        """
        try:
            return self.archive.read(self.entries[self.folder + name])
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"damaged: {error}") from error

    def check_sums(self) -> None:
        """Compare the checksum of every member.

        Raises:
            ValueError: one of them differs.
        """
        try:
            bad = self.archive.testzip()
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"damaged: {error}") from error
        if bad is not None:
            raise ValueError(
                f"damaged: the checksum of {bad} is wrong (or the file was saved with "
                "torch.serialization.set_crc32_options(False): save it again without)"
            )


def _no_archive(file: BinaryIO, length: int) -> str:
    if length == 0:
        return "damaged or torn: the file is empty"
    file.seek(0)
    if file.read(2)[:1] == b"\x80":
        return (
            "in the old format of torch before 1.6, which cannot be checked before it is loaded: "
            "refused (if you trust the file, load it with torch.load(weights_only=True) and save "
            "it again); or damaged"
        )
    return "damaged, or not written by torch.save of torch >= 1.6: it does not begin like one"


def _check_end(file: BinaryIO, length: int) -> None:
    """Refuse archives in which another reader could find another directory.

    The directory has to lie directly before the records that close the file: not elsewhere, with
    nothing in front of the archive and nothing behind it.
    """
    signature, *_, size, offset, comment = _read_struct(file, _END, length - _END.size)
    if signature != b"PK\x05\x06" or comment:
        raise ValueError("damaged: something follows the archive's directory")
    start = length - _END.size
    places = [(size, offset)] if 0xFFFFFFFF not in (size, offset) else []
    if start >= _LOCATOR.size + _END_64.size:
        mark, _, position, _ = _read_struct(file, _LOCATOR, start - _LOCATOR.size)
        if mark == b"PK\x06\x07":
            start -= _LOCATOR.size + _END_64.size
            *_, size, offset = _read_struct(file, _END_64, start)
            places += [(size, offset), (0, position)]
    if not places or any(size + offset != start for size, offset in places):
        raise ValueError("damaged: the archive does not begin where the file does, or has two ends")


def _read_struct(file: BinaryIO, form: struct.Struct, position: int) -> tuple[Any, ...]:
    file.seek(position)
    return form.unpack(file.read(form.size))


def _check_member(info: zipfile.ZipInfo, length: int) -> None:
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed, which torch.save never does: refused")
    if info.flag_bits & _ENCRYPTED:
        raise ValueError(f"{info.filename} is encrypted, which torch.save never does: refused")
    end = info.header_offset + info.compress_size
    if info.file_size != info.compress_size or info.header_offset < 0 or end > length:
        raise ValueError(f"{info.filename} claims {info.file_size} bytes that the file has not")
