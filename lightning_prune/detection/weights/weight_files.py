"""Opens weight files of several kinds: the tensors in them, and what else they say."""

import ast
import json
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_prune.detection.weights.module_tree import child_at, kind_of, module_tensors, unwrap
from lightning_prune.detection.weights.other_models import ONLY
from lightning_prune.detection.weights.tree_architecture import tree_architecture
from lightning_prune.files.inert_pickle import UNREADABLE, Record, read_torch_zip
from lightning_prune.files.read_safetensors import read_safetensors

_EXPORTED = {
    ".onnx": "an ONNX file",
    ".torchscript": "a TorchScript file",
    ".engine": "a TensorRT engine",
    ".tflite": "a TFLite file",
    ".mlpackage": "a CoreML package",
    ".mlmodel": "a CoreML file",
    ".xml": "an OpenVINO file",
    ".pb": "a TensorFlow graph",
    ".param": "an NCNN file",
}
_LONGEST_NAMES = 4_000_000


@dataclass(frozen=True)
class Source:
    """What a weight file holds.

    Attributes:
        tensors: By the names of the file.
        names: Class names as the file has them: a list, a dict, or None.
        image_size: Side of the images as the file has it, or None.
        architecture: Values of ``Architecture`` that the file states, or None where it states none.
    """

    tensors: dict[str, Tensor]
    names: Any = None
    image_size: Any = None
    architecture: dict[str, Any] | None = field(default=None)


def open_weights(path: Path) -> Source:
    """Read a weight file without executing anything in it.

    Raises:
        ValueError: the file is damaged, or holds no weights that could be trained.
    """
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        raise ValueError(f"{path} describes a network and holds no weights: pass a .pt file")
    if suffix in _EXPORTED:
        raise ValueError(_exported(path, _EXPORTED[suffix]))
    return _read_safetensors(path) if suffix == ".safetensors" else _read_torch(path)


def _exported(path: Path, what: str) -> str:
    return (
        f"{path} is {what}, exported for inference: it can be neither trained nor pruned; start "
        "from the .pt or .ckpt that it was made of"
    )


def _read_safetensors(path: Path) -> Source:
    tensors, metadata = read_safetensors(path)
    return Source(tensors, _parse_names(path, metadata.get("names")))


def _parse_names(path: Path, text: str | None) -> Any:
    """Read class names written as JSON or as Python's text of a list or dict."""
    if text is None:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text) if len(text) <= _LONGEST_NAMES else None
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(found, list | dict) and found:
            return found
    warnings.warn(
        f"{path}: the names in its metadata are neither a list nor a mapping: ignored", stacklevel=5
    )
    return None


def _read_torch(path: Path) -> Source:
    if _is_torchscript(path):
        raise ValueError(_exported(path, "a TorchScript file"))
    content = read_torch_zip(path)
    try:
        return _from_content(content)
    except (ValueError, TypeError, AttributeError, LookupError, RuntimeError) as error:
        # Also what the attributes of a forged object make ordinary code raise.
        raise ValueError(f"{path}: {error}") from error


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, *UNREADABLE, OSError):
        return False  # whatever else it is, the careful reader says it


def _from_content(content: Any) -> Source:
    if isinstance(content, Record):
        return _of_module(content, {})
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__}, not a checkpoint or state dict")
    for key in ("ema", "model", "state_dict", "model_state_dict"):
        inner = content.get(key)
        if isinstance(inner, Record):
            return _of_module(inner, content)
        if isinstance(inner, dict) and inner and _is_state_dict(inner):
            return _of_state_dict(inner, content)
    if not _is_state_dict(content):
        keys = ", ".join(sorted(str(key)[:40] for key in content)[:8]) or "nothing"
        raise ValueError(f"neither a model nor a state dict in it; it holds: {keys}")
    return _of_state_dict(content, {})


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(key, str) and isinstance(v, Tensor) for key, v in content.items())


def _of_state_dict(state: Mapping[Any, Any], content: Mapping[str, Any]) -> Source:
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    parameters = content.get("hyper_parameters")
    if not isinstance(parameters, dict):
        return Source(tensors, content.get("names"), _arguments(content, {}).get("imgsz"))
    said = parameters.get("architecture") if "num_classes" in parameters else None
    if said is None and "num_classes" in parameters:
        said = {}
    names = content.get("names") or parameters.get("names")
    return Source(tensors, names, parameters.get("image_size"), said)


def _of_module(record: Record, content: Mapping[str, Any]) -> Source:
    """Read a pickled module; one of Ultralytics says itself how it computes."""
    model = unwrap(record)
    own = model.attributes
    names, size = own.get("names") or content.get("names"), _arguments(content, own).get("imgsz")
    if network := child_at(model, "network"):  # a DetectionModule that was pickled as a whole
        said = network.attributes.get("architecture")
        architecture = said.attributes if isinstance(said, Record) else None
        return Source(module_tensors(model), names, size, architecture)
    kind = kind_of(model)
    if kind.endswith("Model") and kind != "DetectionModel":
        raise ValueError(f"holds a {kind}: {ONLY}")
    tensors = module_tensors(model)
    return Source(tensors, names, size, tree_architecture(model))


def _arguments(content: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    found = content.get("train_args") or own.get("args") or {}
    if isinstance(found, Record):
        found = found.attributes
    return found if isinstance(found, dict) else {}
