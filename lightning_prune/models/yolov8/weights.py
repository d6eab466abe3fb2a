"""Reads weight files: Ultralytics checkpoints, safetensors, plain and Lightning state dicts."""

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightning_prune.files.inert_pickle import Record, read_torch_zip
from lightning_prune.graph.names import plain_name
from lightning_prune.models.yolov8.conversion import (
    convert_ultralytics,
    refuse_other_models,
    strip_wrappers,
)
from lightning_prune.models.yolov8.csp_reset import ORIGINALS
from lightning_prune.models.yolov8.network import SIZES, YOLOv8
from lightning_prune.surgery.architecture import RECORD, read_record

PREFIX = "network."
"""Where the network lies in a ``DetectionModule``."""
_FIRST = "backbone.p1.conv.weight"
_CLASSES = "head.classes.0.2.weight"


@dataclass(frozen=True)
class PretrainedWeights:
    """What a weight file says.

    Attributes:
        state_dict: Tensors under the names of ``YOLOv8``, float32.
        size: n, s, m, l or x.
        num_classes: Number of classes.
        names: Class names, or None where the file has none.
        image_size: Side in pixels that it was trained at, or None where the file does not say.
        record: The architecture record of a pruned ``DetectionModule``, or None for a dense one.
    """

    state_dict: dict[str, Tensor]
    size: str
    num_classes: int
    names: list[str] | None = None
    image_size: int | None = None
    record: Tensor | None = None


@dataclass(frozen=True)
class _Source:
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def read_weights(path: str | Path) -> PretrainedWeights:
    """Read the weights of a YOLOv8 detector without executing anything in the file.

    Understood: ``.pt`` of Ultralytics (the EMA weights where present, half precision), Lightning
    checkpoints and plain state dicts written by ``torch.save``, and ``.safetensors``; under the
    names of Ultralytics or of ``YOLOv8``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds another model, or its tensors do not fit.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"weights={str(path)!r}: no such file")
    source = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    try:
        return _interpret(source)
    except (ValueError, TypeError, LookupError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read only the tensors of a weight file, under the names of ``YOLOv8``; see ``read_weights``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds another model, or its tensors do not fit.
    """
    return read_weights(path).state_dict


def infer_architecture(state_dict: Mapping[str, Tensor]) -> tuple[str, int]:
    """Return size and number of classes of a state dict under the names of ``YOLOv8``.

    Raises:
        ValueError: it is not a YOLOv8 of a published size.

    >>> infer_architecture(YOLOv8("s", num_classes=3).state_dict())
    ('s', 3)
    """
    return _infer({name: tuple(tensor.shape) for name, tensor in state_dict.items()})


def _infer(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, int]:
    if _FIRST not in shapes or _CLASSES not in shapes:
        raise ValueError(
            f"no YOLOv8 detector: {_FIRST if _FIRST not in shapes else _CLASSES} is missing"
        )
    width, num_classes = shapes[_FIRST][0], shapes[_CLASSES][0]
    size = next((name for name, scale in SIZES.items() if scale.widths[0] == width), None)
    if size is None or num_classes < 1:
        raise ValueError(
            f"no published size of YOLOv8 has {width} channels in p1; these have "
            + ", ".join(f"{name} {scale.widths[0]}" for name, scale in SIZES.items())
        )
    with torch.device("meta"):
        expected = {
            name: tuple(value.shape)
            for name, value in YOLOv8(size, num_classes, shapes[_FIRST][1]).state_dict().items()
        }
    wrong = [f"{name} is missing" for name in expected if name not in shapes]
    wrong += [f"{name} is unknown" for name in shapes if name not in expected]
    wrong += [
        f"{name} is {shape} instead of {expected[name]}"
        for name, shape in shapes.items()
        if name in expected and shape != expected[name]
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"no YOLOv8{size} of {num_classes} classes: {'; '.join(wrong[:3])}{more}")
    return size, num_classes


def _interpret(source: _Source) -> PretrainedWeights:
    tensors = {plain_name(name): value for name, value in source.tensors.items()}
    if len(tensors) != len(source.tensors):
        raise ValueError("two tensors differ in name only by _orig_mod.")
    record = tensors.pop(RECORD, None)
    if any(name.startswith(PREFIX) for name in tensors):
        state = {
            name.removeprefix(PREFIX): value
            for name, value in tensors.items()
            if name.startswith(PREFIX)
        }
    elif _FIRST in tensors:
        if record is not None:
            raise ValueError("pruned, but saved without its module: save module.state_dict()")
        state = tensors
    else:
        refuse_other_models(strip_wrappers(name) for name in tensors)
        state = convert_ultralytics(tensors)
    # What resets go back to is not taken over: a run starts from the weights that it is given.
    state = {name: value for name, value in state.items() if f".{ORIGINALS}" not in name}
    dense = {} if record is None else (read_record({RECORD: record}) or {})["dense"]
    shapes = {name: tuple(dense.get(PREFIX + name, value.shape)) for name, value in state.items()}
    _check_cut(state, shapes)
    size, num_classes = _infer(shapes)
    # Copied only now: several tensors of a hostile file may share one storage, and each copy
    # would have the whole.
    state = {name: _clean(name, value) for name, value in state.items()}
    names = _names(source.facts.get("names"), num_classes)
    return PretrainedWeights(
        state, size, num_classes, names, _image_size(source.facts.get("image_size")), record
    )


def _check_cut(state: Mapping[str, Tensor], dense: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a record of a wider network than a cut can have come from."""
    for name, value in state.items():
        new, old = tuple(value.shape), dense[name]
        # No cut changes what goes into the network and what comes out.
        fixed = (name == _FIRST and new[1:] != old[1:]) or (name == _CLASSES and new[:1] != old[:1])
        if fixed or len(new) != len(old) or any(n > o for n, o in zip(new, old, strict=True)):
            raise ValueError(
                f"{name} is {new}, and {old} before the cut according to {RECORD}: the file was "
                "altered"
            )


def _clean(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value.clone()
    value = value.to(torch.float32, copy=True).contiguous()
    if not value.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinity: the training that wrote it diverged")
    return value


def _names(found: Any, num_classes: int) -> list[str] | None:
    if isinstance(found, dict):
        found = [found.get(index) for index in range(len(found))]
    if not isinstance(found, list) or not found:
        return None
    if len(found) != num_classes or not all(isinstance(name, str) for name in found):
        warnings.warn(
            f"the file names {len(found)} classes but its head has {num_classes}: names ignored",
            stacklevel=5,
        )
        return None
    return list(found)


def _image_size(found: Any) -> int | None:
    if isinstance(found, list | tuple) and found:
        found = max(found) if all(isinstance(side, int) for side in found) else None
    return found if isinstance(found, int) and found > 0 else None


def _read_safetensors(path: Path) -> _Source:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}") from error
    facts: dict[str, Any] = {}
    if "names" in metadata:
        try:
            names = json.loads(metadata["names"])
        except ValueError:
            names = None
        facts["names"] = list(names.values()) if isinstance(names, dict) else names
    return _Source(tensors, facts)


def _read_torch(path: Path) -> _Source:
    content = read_torch_zip(path)
    try:
        return _from_content(content)
    except (ValueError, TypeError, AttributeError, LookupError, RuntimeError) as error:
        # Also what the attributes of a forged object make ordinary code raise.
        raise ValueError(f"{path}: {error}") from error


def _from_content(content: Any) -> _Source:
    if isinstance(content, Record):
        return _Source(_module_tensors(content), _facts(content, {}))
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__}, not a checkpoint or state dict")
    for key in ("ema", "model", "state_dict", "model_state_dict"):
        inner = content.get(key)
        if isinstance(inner, Record):
            return _Source(_module_tensors(inner), _facts(inner, content))
        if isinstance(inner, dict) and inner and _is_state_dict(inner):
            return _Source(_tensors(inner), _facts(None, content))
    if not _is_state_dict(content):
        keys = ", ".join(sorted(map(str, content))[:8]) or "nothing"
        raise ValueError(f"neither a model nor a state dict in it; it holds: {keys}")
    return _Source(_tensors(content), {})


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(key, str) and isinstance(v, Tensor) for key, v in content.items())


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _facts(model: Record | None, content: Mapping[str, Any]) -> dict[str, Any]:
    own = model.attributes if model is not None else {}
    arguments = content.get("train_args") or own.get("args") or {}
    if isinstance(arguments, Record):
        arguments = arguments.attributes
    parameters = content.get("hyper_parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    return {
        "names": own.get("names") or content.get("names") or parameters.get("names"),
        "image_size": arguments.get("imgsz") or parameters.get("image_size"),
    }


def _module_tensors(model: Record) -> dict[str, Tensor]:
    """Return the state dict of a pickled module from the records of its parts."""
    kind = model.path.rpartition(".")[2]
    if re.search(r"(?<!Detection)Model$", kind) or kind.startswith("RTDETR"):
        raise ValueError(f"holds a {kind}: only YOLOv8 detection models are read")
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("", model)]
    while stack:
        prefix, module = stack.pop()
        if module is None:
            continue
        if not isinstance(module, Record) or id(module) in seen:
            raise ValueError(f"{prefix or 'the model'} is no module, or appears twice")
        seen.add(id(module))
        state = module.attributes
        hidden = state.get("_non_persistent_buffers_set") or ()
        own = {**(state.get("_parameters") or {}), **(state.get("_buffers") or {})}
        for name, value in own.items():
            if isinstance(value, Tensor) and name not in hidden:
                if prefix + name in tensors:
                    raise ValueError(f"two tensors are named {prefix + name}")
                tensors[prefix + name] = value
        for name, child in (state.get("_modules") or {}).items():
            stack.append((f"{prefix}{name}.", child))
    if not tensors:
        raise ValueError(f"the {kind or 'object'} in it has no tensors: not a model")
    return tensors
