"""Why a checkpoint was not read."""

from lightning_prune.files.file_error import FileError


class CheckpointError(FileError):
    """A file that is torn, altered, no checkpoint, or refused; nothing in it was executed.

    Attributes:
        path: The file.
        reason: What is wrong with it, without its name.
    """
