"""Opens files that strangers put there: what is no regular file is never opened."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class NotRegularError(OSError):
    """What lies under a name is a folder, a pipe, a socket, a device or a link to nothing.

    ``strerror`` says which, in words that fit behind "PATH: ".
    """


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading as binary; never wait for a writer, never open a device.

    Args:
        path: The file, or a link to one.

    Raises:
        FileNotFoundError: nothing has this name.
        NotRegularError: what has this name is no regular file.
        OSError: as of any file.

    >>> open_regular("/")
    Traceback (most recent call last):
        ...
    lightning_prune.files.open_regular.NotRegularError: [Errno 22] a folder, not a file: '/'
    """
    path = Path(path)
    try:
        _check_kind(os.stat(path), path)
        descriptor = os.open(path, _FLAGS)
    except NotRegularError:
        raise
    except ValueError as error:  # a NUL in the name
        raise NotRegularError(errno.EINVAL, f"no name of a file ({error})", str(path)) from error
    except OSError as error:
        explained = _explained(error, path)
        raise explained from (None if explained is error else error)
    try:
        _check_kind(os.fstat(descriptor), path)  # the name may lead elsewhere by now
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_kind(status: os.stat_result, path: Path) -> None:
    for test, kind in _KINDS:
        if test(status.st_mode):
            raise NotRegularError(errno.EINVAL, f"{kind}, not a file", str(path))


def _explained(error: OSError, path: Path) -> OSError:
    if error.errno == errno.ELOOP:
        return NotRegularError(error.errno, "a link that leads back to itself", str(path))
    if isinstance(error, FileNotFoundError):
        if not path.is_symlink():
            return error
        target = os.readlink(path)
        what = f"a link to {target!r:.200}, which is not there"
        if "annex/objects" in target.replace("\\", "/"):
            what = "a link of git-annex whose content is not here: run `git annex get` on it"
        return NotRegularError(error.errno, what, str(path))
    return error
