"""Reads texts of strangers: of bounded size, and never from a pipe."""

import codecs
import os
from pathlib import Path

from lightning_prune.files.file_error import FileError
from lightning_prune.files.foreign_file import describe_foreign
from lightning_prune.files.open_regular import NotRegularError, open_regular

MEGABYTE = 2**20
_WIDE = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str | Path, largest: int = 16 * MEGABYTE) -> str:
    """Return the text of a file in UTF-8, or in what its byte order mark says; without that mark.

    Args:
        path: The file.
        largest: Bytes that it may have.

    Raises:
        FileNotFoundError: nothing has this name.
        FileError: it is no regular file, too large, no text, or stands for another file (a pointer
            of Git LFS, a web page): the message says which, and what to do.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(largest, size) + 1)
    except FileNotFoundError:
        raise
    except NotRegularError as error:
        raise FileError(path, f"{error.strerror}") from error
    except OSError as error:
        raise FileError(path, f"unreadable ({error.strerror or error})") from error
    foreign = describe_foreign(path, "annotations")
    encoding = next((name for mark, name in _WIDE if content.startswith(mark)), "utf-8-sig")
    if foreign is not None and encoding == "utf-8-sig":
        raise FileError(path, foreign)
    if len(content) > largest:
        raise FileError(path, f"more than {largest / MEGABYTE:g} MB, which no such file needs")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise FileError(
            path, f"no text in UTF-8 (byte {error.start}): save it again in UTF-8"
        ) from error
