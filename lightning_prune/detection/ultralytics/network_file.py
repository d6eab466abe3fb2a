"""Read a `.pt` of Ultralytics without executing it: the YAML in it, its tensors, its facts."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_prune.detection.network.activations import canonical_activation
from lightning_prune.detection.ultralytics.network_yaml import PRUNED, check_yaml, without_note
from lightning_prune.detection.weights.module_tree import kind_of, module_tensors, unwrap
from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.foreign_file import describe_foreign
from lightning_prune.files.inert_pickle import Record, read_torch_zip
from lightning_prune.files.own_copy import own_copies
from lightning_prune.files.read_safetensors import read_safetensors
from lightning_prune.surgery.architecture import RECORD

KINDS = {
    "DetectionModel": "detect",
    "RTDETRDetectionModel": "detect",
    "SegmentationModel": "segment",
}
"""Class of a network that is trained and pruned -> its task."""
_REFUSED = {
    "PoseModel": "a pose network",
    "OBBModel": "a network of oriented boxes",
    "ClassificationModel": "a classifier (model=timm trains and prunes those)",
    "WorldModel": "YOLO-World",
    "YOLOEModel": "YOLOE",
    "YOLOESegModel": "YOLOE",
}


@dataclass(frozen=True)
class NetworkFile:
    """What a file says of a network.

    Attributes:
        kind: Class of the network; None for a plain state dict.
        yaml: What the network is built of; None for a plain state dict.
        tensors: Its state dict, float32.
        names: Class names, or None.
        image_size: Side in pixels that it was trained at, or None.
        version: Of the package that wrote it, or None.
        record: The architecture record of a network that was pruned here, or None.
        model: The pickled network as a record, to compare with what is built; None without.
        activations: Of a pruned network, what its YAML does not say.
    """

    kind: str | None
    yaml: dict[str, Any] | None
    tensors: dict[str, Tensor]
    names: list[str] | None = None
    image_size: int | None = None
    version: str | None = None
    record: Tensor | None = None
    model: Record | None = field(default=None, repr=False)
    activations: dict[str, str] = field(default_factory=dict)


def read_network(path: str | Path) -> NetworkFile:
    """Read a network that Ultralytics, or ``export --format ultralytics``, wrote.

    Nothing in the file is executed: pickled modules are read as records.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds something else; the message says what.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        foreign = None if path.is_dir() else describe_foreign(path)
        if foreign is not None:
            raise CheckpointError(path, foreign)
        what = "a folder, pass a file in it" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"weights={str(path)!r}: {what}")
    try:
        if path.suffix.lower() == ".safetensors":
            return NetworkFile(None, None, _copies(read_safetensors(path)[0]))
        return _interpret(read_torch_zip(path))
    except CheckpointError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        # Also what the attributes of a forged object make ordinary code raise.
        raise ValueError(f"{path}: {error}") from error


def _interpret(content: Any) -> NetworkFile:
    holder: Mapping[str, Any] = content if isinstance(content, dict) else {}
    found = next((r for k in ("ema", "model") if isinstance(r := holder.get(k), Record)), None)
    found = content if isinstance(content, Record) else found
    if found is None:
        return _plain(holder)
    model = unwrap(found)
    kind, own = kind_of(model), model.attributes
    if kind not in KINDS:
        what = _REFUSED.get(kind, f"a {kind}")
        raise ValueError(f"holds {what}: only {', '.join(sorted(KINDS))} of Ultralytics are pruned")
    yaml = own.get("yaml")
    if not isinstance(yaml, dict):
        raise ValueError(f"its {kind} does not say what it is built of (no `yaml`)")
    record = _record_of(yaml)
    built_of = without_note(yaml)
    check_yaml(built_of)
    arguments = _values(holder.get("train_args")) or _values(own.get("args"))
    return NetworkFile(
        kind, built_of, _copies(module_tensors(model)), _names(own.get("names")),
        _side(arguments.get("imgsz")), _text(holder.get("version")), record, model,
        _activations_of(yaml) if record is not None else {},
    )  # fmt: skip


def _plain(content: Mapping[str, Any]) -> NetworkFile:
    """Read a checkpoint of ``UltralyticsModule``, or a state dict whose network the user names."""
    said = content.get("hyper_parameters")
    for key in ("state_dict", "model", "ema", "model_state_dict"):
        if isinstance(inner := content.get(key), dict):
            content = inner
            break
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError("neither a network of Ultralytics nor a state dict in it")
    record = tensors.pop(RECORD, None)
    if not isinstance(said, dict) or not isinstance(said.get("yaml"), dict):
        if record is not None:
            raise ValueError("pruned, and it does not say from which network: pass its checkpoint")
        return NetworkFile(None, None, _copies(tensors))
    if said.get("kind") not in KINDS:
        raise ValueError(f"a checkpoint of a {str(said.get('kind'))[:40]}: one of {sorted(KINDS)}")
    yaml = {**said["yaml"], "nc": said.get("num_classes", said["yaml"].get("nc"))}
    check_yaml(yaml)
    return NetworkFile(
        str(said["kind"]), yaml, _copies(tensors), _names(said.get("names")),
        _side(said.get("image_size")), None, record, None, _texts(said.get("activations")),
    )  # fmt: skip


def _record_of(yaml: Mapping[str, Any]) -> Tensor | None:
    note = yaml.get(PRUNED)
    if not isinstance(note, dict):
        return None
    try:
        content = base64.b64decode(str(note["record"]), validate=True)
    except (KeyError, binascii.Error, ValueError) as error:
        raise ValueError("pruned, but its architecture record is damaged") from error
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _activations_of(yaml: Mapping[str, Any]) -> dict[str, str]:
    return _texts(yaml[PRUNED].get("activations"))


def _texts(found: Any) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    return {str(path): canonical_activation(str(text)) for path, text in found.items()}


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for name, value in tensors.items():
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{name} is larger than what is stored of it: the file was altered")
    return own_copies(tensors)


def _names(found: Any) -> list[str] | None:
    values = list(found.values()) if isinstance(found, dict) else found
    if not isinstance(values, list | tuple) or not values:
        return None
    return [str(value) for value in values]


def _values(found: Any) -> Mapping[str, Any]:
    found = found.attributes if isinstance(found, Record) else found
    return found if isinstance(found, dict) else {}


def _side(found: Any) -> int | None:
    if isinstance(found, list | tuple) and found and all(isinstance(s, int) for s in found):
        found = max(found)
    return found if isinstance(found, int) and 0 < found <= 65536 else None


def _text(found: Any) -> str | None:
    return found if isinstance(found, str) and len(found) < 40 else None
