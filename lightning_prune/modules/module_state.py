"""Read the weights of a module from a file."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.read_checkpoint import read_checkpoint


def read_module_state(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a Lightning checkpoint, ``torch.save`` or ``.safetensors`` file.

    Nothing pickled is executed.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is torn, altered, of another format, or holds no state dict.
    """
    if path.suffix == ".safetensors" and path.is_file():
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(path, f"damaged or no safetensors file ({error})") from error
    content = read_checkpoint(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(path, "holds no state dict")
    return state
