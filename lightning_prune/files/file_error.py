"""Why a file was not read."""

from pathlib import Path


class FileError(ValueError):
    """A file that is not what it should be; nothing in it was executed.

    Attributes:
        path: The file.
        reason: What is wrong with it, without its name.
    """

    def __init__(self, path: str | Path, reason: str):
        # Both as arguments: exceptions travel between processes by their arguments.
        super().__init__(path, reason)
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{printable(str(self.path), 1000)}: {self.reason}"


def printable(text: str, most: int = 60) -> str:
    r"""Return a name of a stranger in one short line that every terminal can show.

    >>> printable("a\nb"), printable("x" * 100, 5)
    ('a\\nb', 'xxxxx...')
    """
    short = text[:most] + ("..." if len(text) > most else "")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)
