"""Reads the tensors of a safetensors file."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.foreign_file import describe_foreign
from lightning_prune.files.inert_pickle import UNREADABLE, explain
from lightning_prune.files.open_regular import open_regular


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file by name, and the texts that stand beside them.

    Raises:
        FileNotFoundError: nothing has this name.
        CheckpointError: it is damaged or another file; the message says which.
    """
    path = Path(path)
    try:
        open_regular(path).close()  # the library would wait for the writer of a pipe
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except FileNotFoundError:
        raise
    except (*UNREADABLE, SafetensorError, OSError) as error:
        why = f"damaged or no safetensors file ({explain(error)})"
        raise CheckpointError(path, describe_foreign(path) or why) from error
