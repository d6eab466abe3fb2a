"""Read the weights of a module from a file."""

from pathlib import Path

from torch import Tensor

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.read_checkpoint import read_checkpoint
from lightning_prune.files.read_safetensors import read_safetensors


def read_module_state(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a Lightning checkpoint, ``torch.save`` or ``.safetensors`` file.

    Nothing pickled is executed.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is torn, altered, of another format, or holds no state dict.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    content = read_checkpoint(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise CheckpointError(path, "holds no state dict")
    return state
