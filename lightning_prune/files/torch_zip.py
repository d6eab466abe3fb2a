"""The archive that ``torch.save`` writes, checked before anything in it is used."""

import struct
import zipfile
from typing import BinaryIO

from lightning_prune.files.file_error import printable
from lightning_prune.files.zip_layout import check_end, check_members

MAX_PICKLE_BYTES = 256 * 2**20
"""The structure of a checkpoint without its tensors; real ones have some hundred kilobytes."""
_BAD_ZIP = (
    zipfile.BadZipFile, EOFError, NotImplementedError, OverflowError, RuntimeError, struct.error,
    UnicodeError,
)  # fmt: skip


class TorchZip:
    """The members of an archive, each of which fits into the file.

    ``torch.save`` stores its members one after the other and uncompressed. Whatever else a zip
    file can be (compressed, two members of one name or of names that differ in case only, several
    members of the same bytes, headers that contradict the directory, a second directory) only
    serves to make a reader allocate more than the file has, or to show two readers different
    contents. This one is Python's; the other is that of ``torch.load``.

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
        if file.read(4) != b"PK\x03\x04":
            raise ValueError(_no_archive(file, self.length))
        directory, count = check_end(file, self.length)
        try:
            self.archive = zipfile.ZipFile(file)
            infos = self.archive.infolist()
            check_members(file, infos, directory, count)
        except _BAD_ZIP as error:
            raise ValueError(f"damaged or torn: {printable(str(error), 200)}") from error
        self.entries = {info.filename: info for info in infos}
        self.folder = self._find_folder(infos[0].filename)

    def _find_folder(self, first: str) -> str:
        pickles = [n for n in self.entries if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"expected one data.pkl in the archive, found {len(pickles)}")
        folder = pickles[0].removesuffix("data.pkl")
        # torch takes the folder of the first entry for that of all.
        other = next((n for n in self.entries if not n.startswith(folder)), None)
        if folder != first.split("/")[0] + "/" or other is not None:
            raise ValueError(
                "its entries are not in one folder, as torch.save has them: refused "
                f"({printable(other or first)})"
            )
        size = self.entries[pickles[0]].file_size
        if size > MAX_PICKLE_BYTES:
            raise ValueError(f"data.pkl has {size} bytes, which no structure of a model needs")
        return folder

    def read(self, name: str) -> bytes:
        """Return one member's bytes, whose checksum is compared.

        Raises:
            ValueError: they were altered.
        """
        try:
            return self.archive.read(self.entries[self.folder + name])
        except _BAD_ZIP as error:
            raise ValueError(f"damaged: {printable(str(error), 200)}") from error

    def check_byte_order(self) -> None:
        """Check that numbers are stored as on most machines, which torch cannot always turn.

        Raises:
            ValueError: they are not.
        """
        info = self.entries.get(f"{self.folder}byteorder")
        if info is None:
            return
        order = self.read("byteorder") if info.file_size < 10 else b""
        if order == b"big":
            raise ValueError("written on a big-endian machine: save it again on another one")
        if order != b"little":
            raise ValueError("damaged: its byte order is neither little nor big")

    def check_sums(self) -> None:
        """Compare the checksum of every member.

        Raises:
            ValueError: one of them differs.
        """
        try:
            bad = self.archive.testzip()
        except _BAD_ZIP as error:
            raise ValueError(f"damaged: {printable(str(error), 200)}") from error
        if bad is not None:
            raise ValueError(
                f"damaged: the checksum of {printable(bad)} is wrong (or the file was saved with "
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
