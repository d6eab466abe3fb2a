"""The digest of a file, kept beside it."""

import hashlib
import os
import re
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path

from lightning_prune.files.file_error import printable
from lightning_prune.files.open_regular import open_regular
from lightning_prune.files.write_bytes import write_bytes

_LINE = re.compile(r"([0-9a-f]{64}) [ *]")
_LARGEST = 1 << 16


class Sidecar:
    """``NAME.sha256`` beside a file: its SHA-256 in the form of ``sha256sum``.

    Two lines mean that a replacement was under way: either content is intact.

    Args:
        target: The file.
        follow: Of a link, whether the file that it leads to is meant: it has the sidecar.
    """

    def __init__(self, target: Path, follow: bool = True):
        self.target = target.resolve() if follow else target
        self.path = self.target.with_name(self.target.name + ".sha256")

    def digests(self) -> list[str] | None:
        """Return the digests that count as intact, or None where there is no sidecar.

        Raises:
            OSError: it is no regular file, or may not be read.
        """
        try:
            with open_regular(self.path) as file:
                text = file.read(_LARGEST).decode(errors="replace")
        except FileNotFoundError:
            return None
        return [found[1] for line in text.splitlines() if (found := _LINE.match(line))]

    def write(self, digests: Iterable[str]) -> None:
        """Replace the sidecar."""
        lines = [f"{digest}  {self.target.name}\n" for digest in dict.fromkeys(digests)]
        write_bytes(self.path, "".join(lines).encode())

    def is_there(self) -> bool:
        """Return whether something has the sidecar's name, readable or not."""
        return os.path.lexists(self.path)

    def current(self) -> list[str]:
        """Return the digest of the file as it is now, for the time of its replacement.

        A single line is believed. Where there are two, or none, the file is read. A file that
        fits none of its lines stays flagged: nothing is returned.
        """
        if not self.target.is_file():
            return []
        listed = self.digests()
        if listed is not None and len(listed) == 1:
            return listed
        with self.target.open("rb") as file:
            actual = sha256(file)
        return [actual] if listed is None or actual in listed else []

    def problem(self, file: BufferedReader) -> str | None:
        """Return how the content of an open file contradicts the sidecar, or None."""
        try:
            listed = self.digests()
        except OSError as error:
            why = error.strerror or type(error).__name__
            return f"its digest {printable(self.path.name, 255)} cannot be read: {why}"
        if listed is None or sha256(file) in listed:
            return None
        return (
            f"altered or torn: its content does not match {printable(self.path.name, 255)} "
            "(if you replaced the file on purpose, delete that one)"
        )


def sha256(file: BufferedReader) -> str:
    """Return the digest of an open file from its beginning to its end."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()
