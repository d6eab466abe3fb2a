"""Reads weight files: Ultralytics checkpoints, safetensors, plain and Lightning state dicts."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_prune.detection.network.architecture import RECORD as ARCHITECTURE
from lightning_prune.detection.network.architecture import read_architecture_record
from lightning_prune.detection.network.csp_reset import COUNTS, ORIGINALS
from lightning_prune.detection.weights.conversion import convert_ultralytics, strip_wrappers
from lightning_prune.detection.weights.infer_architecture import CLASSES, FIRST, infer_from_shapes
from lightning_prune.detection.weights.other_models import refuse_other_names
from lightning_prune.detection.weights.weight_files import Source, open_weights
from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.foreign_file import describe_foreign
from lightning_prune.files.own_copy import own_copies
from lightning_prune.graph.names import plain_name
from lightning_prune.surgery.architecture import RECORD, read_record, with_record

PREFIX = "network."
"""Where the network is in a ``DetectionModule``."""
_THEIR_FIRST, _THEIR_LAST = "0.conv.weight", "22.dfl.conv.weight"


@dataclass(frozen=True)
class PretrainedWeights:
    """What a weight file says.

    Attributes:
        state_dict: Tensors under the names of ``YOLOv8``, float32.
        size: n, s, m, l or x; custom for widths or depths of none of these.
        num_classes: Number of classes.
        names: Class names, or None where the file has none.
        image_size: Side in pixels that it was trained at, or None where the file does not say.
        record: The architecture record of a pruned ``DetectionModule``, or None for a dense one.
        in_channels: Channels of the image.
        architecture: What is not as published, as ``Architecture.changes`` gives it.
        stated: Whether the file says how the network computes (activations, shortcuts, norms,
            pyramid); False for a plain state dict, which is taken as published.
    """

    state_dict: dict[str, Tensor]
    size: str
    num_classes: int
    names: list[str] | None = None
    image_size: int | None = None
    record: Tensor | None = None
    in_channels: int = 3
    architecture: dict[str, Any] = field(default_factory=dict)
    stated: bool = False


def read_weights(path: str | Path) -> PretrainedWeights:
    """Read the weights of a YOLOv8 detector without executing anything in the file.

    Understood: ``.pt`` of Ultralytics (the EMA weights where present, half precision), Lightning
    checkpoints and plain state dicts written by ``torch.save``, and ``.safetensors``; under the
    names of Ultralytics or of ``YOLOv8``. See docs/weights.md.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds another model, or its tensors do not fit.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        foreign = None if path.is_dir() else describe_foreign(path)
        if foreign is not None:  # a pipe, a link to nothing
            raise CheckpointError(path, foreign)
        what = "a folder, pass a file in it" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"weights={str(path)!r}: {what}")
    source = open_weights(path)
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


def _interpret(source: Source) -> PretrainedWeights:
    tensors = {plain_name(name): value for name, value in source.tensors.items()}
    if len(tensors) != len(source.tensors):
        raise ValueError("two tensors differ in name only by _orig_mod.")
    state, record, said = _own_names(tensors)
    said = source.architecture if said is None else said
    # What resets go back to is not taken over: a run starts from the weights that it is given.
    state = {
        name: value
        for name, value in state.items()
        if f".{ORIGINALS}" not in name and not name.endswith(COUNTS)
    }
    dense = {} if record is None else (read_record({RECORD: record}) or {})["dense"]
    shapes = {name: tuple(dense.get(PREFIX + name, value.shape)) for name, value in state.items()}
    _check_cut(state, shapes)
    found = infer_from_shapes(shapes, said)
    state = own_copies(state)  # only now
    return PretrainedWeights(
        state,
        found.size,
        found.num_classes,
        _names(source.names, found.num_classes),
        _image_size(source.image_size),
        record,
        found.in_channels,
        found.architecture.changes(),
        said is not None,
    )


def _own_names(
    tensors: dict[str, Tensor],
) -> tuple[dict[str, Tensor], Tensor | None, dict[str, Any] | None]:
    """Return the tensors under the names of ``YOLOv8``, and the records that lie among them."""
    tensors = with_record(tensors)
    places = [name.removesuffix(FIRST) for name in tensors if name.endswith(FIRST)]
    place = PREFIX if PREFIX in places else next(iter(places), None)
    if place is None:
        return convert_ultralytics(_their_names(tensors)), None, None
    if len(places) > 1 and place != PREFIX:
        raise ValueError(f"{len(places)} networks in it, at {', '.join(places)}: save one of them")
    inside = {n.removeprefix(place): v for n, v in tensors.items() if n.startswith(place)}
    record = tensors.get(place.removesuffix(PREFIX) + RECORD)
    inside.pop(RECORD, None)
    said = inside.pop(ARCHITECTURE, None)
    pruned = any(name.rpartition(".")[2] == RECORD for name in tensors)
    if pruned and (record is None or not place.endswith(PREFIX)):
        raise ValueError("pruned, but saved without its module: save module.state_dict()")
    return inside, record, None if said is None else read_architecture_record(said).changes()


def _their_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a detector that was saved within or below ``model`` as usual."""
    places = [
        name.removesuffix(_THEIR_FIRST)
        for name in tensors
        if name == _THEIR_FIRST or name.endswith(f".{_THEIR_FIRST}")
    ]
    for place in places:
        if f"{place}{_THEIR_LAST}" in tensors and not place.endswith("model."):
            tensors = {
                f"model.{n.removeprefix(place)}" if n.startswith(place) else n: v
                for n, v in tensors.items()
            }
    refuse_other_names(strip_wrappers(name) for name in tensors)
    return tensors


def _check_cut(state: Mapping[str, Tensor], dense: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a record of a wider network than a cut can have come from."""
    for name, value in state.items():
        new, old = tuple(value.shape), dense[name]
        # No cut changes what goes into the network and what comes out.
        fixed = (name == FIRST and new[1:] != old[1:]) or (name == CLASSES and new[:1] != old[:1])
        if fixed or len(new) != len(old) or any(n > o for n, o in zip(new, old, strict=True)):
            raise ValueError(
                f"{name} is {new}, and {old} before the cut according to {RECORD}: the file was "
                "altered"
            )


def _names(found: Any, num_classes: int) -> list[str] | None:
    names = _listed(found)
    if names is None:
        return None
    if len(names) != num_classes:
        warnings.warn(
            f"the file names {len(names)} classes but its head has {num_classes}: names ignored",
            stacklevel=5,
        )
        return None
    # Numbers, and words that YAML reads as truth values (`no`), are names too.
    if not all(isinstance(name, str | bool | float) or _is_small(name) for name in names):
        warnings.warn("the class names of the file are no text: names ignored", stacklevel=5)
        return None
    return [str(name) for name in names]


def _listed(found: Any) -> list[Any] | None:
    """Return names in the order of their classes, from a list or from a dict with their numbers."""
    if isinstance(found, list | tuple):
        return list(found) or None
    if not isinstance(found, dict) or not found:
        return None
    numbered = {
        int(key): name
        for key, name in found.items()
        if _is_small(key) or (isinstance(key, str) and len(key) < 10 and key.isdecimal())
    }
    return [numbered.get(index) for index in range(len(found))]


def _is_small(value: Any) -> bool:
    return isinstance(value, int) and abs(value) < 2**63


def _image_size(found: Any) -> int | None:
    if isinstance(found, list | tuple) and found:
        found = max(found) if all(isinstance(side, int) for side in found) else None
    return found if isinstance(found, int) and found > 0 else None
