"""Reads weight files of classifiers: what timm writes, and checkpoints of this project."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.foreign_file import describe_foreign
from lightning_prune.files.inert_pickle import read_torch_zip
from lightning_prune.files.own_copy import own_copies
from lightning_prune.files.read_safetensors import read_safetensors
from lightning_prune.graph.names import plain_name
from lightning_prune.surgery.architecture import RECORD, with_record

PREFIX = "network."
"""Where the network is in a ``ClassifierModule``."""
_EXPORTED = (".onnx", ".torchscript", ".engine", ".tflite", ".npz", ".h5")
# Averaged weights first, as timm takes them.
_PLACES = ("state_dict_ema", "model_ema", "state_dict", "model")


@dataclass(frozen=True)
class ClassifierWeights:
    """What a weight file holds.

    Attributes:
        path: The file.
        tensors: Float32 by timm's names.
        record: The architecture record of a pruned ``ClassifierModule``; None for a dense one.
    """

    path: Path
    tensors: dict[str, Tensor]
    record: Tensor | None = None

    def classes(self, heads: Sequence[str]) -> int | None:
        """Return the number of classes, by the heads of the network; None: there is no head."""
        for head in heads:
            weight = self.tensors.get(f"{head}.weight")
            if weight is not None and weight.ndim:
                return len(weight)
        return None


def read_classifier_weights(path: str | Path) -> ClassifierWeights:
    """Read a weight file without executing anything in it.

    Understood: ``.safetensors``; state dicts and training checkpoints of timm (averaged weights
    where there are some); checkpoints of ``ClassifierModule``, pruned or not.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds no weights, or they are NaN or infinite.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        foreign = None if path.is_dir() else describe_foreign(path)
        if foreign is not None:
            raise CheckpointError(path, foreign)
        what = "a folder, pass a file in it" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"weights={str(path)!r}: {what}")
    if path.suffix.lower() in _EXPORTED:
        raise ValueError(f"{path} is no weight file of timm: pass its .safetensors or .pth file")
    if path.suffix.lower() == ".safetensors":
        state: Mapping[Any, Any] = read_safetensors(path)[0]
    else:
        state = _state_dict(path, read_torch_zip(path))
    try:
        return _interpret(path, state)
    except (ValueError, TypeError, LookupError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _state_dict(path: Path, content: Any) -> Mapping[Any, Any]:
    if not isinstance(content, dict):
        kind = getattr(content, "path", "") or type(content).__name__
        raise ValueError(
            f"{path} holds a {kind}, no state dict: save model.state_dict(), not the model"
        )
    for key in _PLACES:
        inner = content.get(key)
        if isinstance(inner, dict) and _has_tensors(inner):
            return inner
    if not _has_tensors(content):
        keys = ", ".join(sorted(str(key)[:40] for key in content)[:8]) or "nothing"
        raise ValueError(f"{path} holds no state dict, but: {keys}")
    return content


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(key, str) and isinstance(v, Tensor) for key, v in content.items())


def _interpret(path: Path, state: Mapping[Any, Any]) -> ClassifierWeights:
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    tensors = with_record({plain_name(name): value for name, value in tensors.items()})
    record = tensors.pop(RECORD, None)
    if any(name.rpartition(".")[2] == RECORD for name in tensors):
        raise ValueError("pruned, but saved without its module: save module.state_dict()")
    for prefix in ("module.", PREFIX):  # of DistributedDataParallel, and of ClassifierModule
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    # Copied only now: several tensors of a hostile file may share one storage.
    return ClassifierWeights(path, own_copies(tensors), record)
