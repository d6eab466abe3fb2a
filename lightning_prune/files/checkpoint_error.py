"""Why a checkpoint was not read."""

from pathlib import Path


class CheckpointError(ValueError):
    """A file that is torn, altered, no checkpoint, or refused; nothing in it was executed.

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
        return f"{self.path}: {self.reason}"
