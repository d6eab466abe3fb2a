"""Weights of segmentation networks from files: whole networks, pruned ones, encoders alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from lightning_prune.files.own_copy import own_copies
from lightning_prune.graph.names import plain_name
from lightning_prune.runs.checkpoint.module_state import read_module_state
from lightning_prune.surgery.architecture import RECORD, with_record

PREFIX = "network."
"""Where the network is in a ``SegmentationModule``."""
_ENCODER, _HEAD = "network.encoder.", "network.segmentation_head."
_SHOWN = 4


class FittedWeights(NamedTuple):
    """Tensors of a file under the names of a module.

    Attributes:
        state: Of the whole module; what the file lacks has the module's own values.
        fresh: Names of parameters that the file lacks.
        unused: Names in the file that have no place.
    """

    state: dict[str, Tensor]
    fresh: list[str]
    unused: list[str]


def read_fitted(path: Path, own: Mapping[str, Tensor]) -> FittedWeights:
    """Read a weight file for a network; nothing in it is executed.

    Understood are the state of a ``SegmentationModule`` (a checkpoint, pruned or not), of the
    network as segmentation_models_pytorch names it, within any other module too, or of its encoder
    alone; as files of ``torch.save``, ``.safetensors``, or a folder of ``save_pretrained``. A head
    for another number of classes is left fresh.

    Args:
        path: The file.
        own: State dict of the module that takes the weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, pickled, or of another network.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    state = with_record({plain_name(key): value for key, value in read_module_state(file).items()})
    try:
        return _fitted(state, {key: own[key] for key in own if key.startswith(PREFIX)})
    except ValueError as error:
        raise ValueError(f"weights={str(path)!r}: {error}") from error


def _fitted(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> FittedWeights:
    place = _place_of(state, own)
    if place is None:
        return _of_encoder(state, own)
    inside = {
        PREFIX + key.removeprefix(place): value
        for key, value in state.items()
        if key.startswith(place) and key.rpartition(".")[2] != RECORD
    }
    record = state.get(place.removesuffix(PREFIX) + RECORD)
    if record is None and any(key.rpartition(".")[2] == RECORD for key in state):
        raise ValueError("pruned, but saved without its module: save module.state_dict()")
    _check_names(inside, own)
    if record is not None:
        _check_classes(inside, own)
        return FittedWeights({**own_copies(inside), RECORD: record}, [], [])
    fresh = [key for key in own if key.startswith(_HEAD) and inside[key].shape != own[key].shape]
    inside |= {key: own[key] for key in fresh}
    _check_shapes(inside, own)
    return FittedWeights(own_copies(inside), fresh, [])


def _place_of(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """Return the names' beginning up to the network's own; None: its head is not there."""
    last = next(reversed([key for key in own if key.startswith(_HEAD)])).removeprefix(PREFIX)
    places = [key.removesuffix(last) for key in state if key == last or key.endswith(f".{last}")]
    if PREFIX in places:
        return PREFIX
    if len(places) > 1:
        raise ValueError(f"{len(places)} networks in it, at {', '.join(places)}: save one of them")
    return places[0] if places else None


def _of_encoder(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> FittedWeights:
    encoder = {key.removeprefix(_ENCODER): key for key in own if key.startswith(_ENCODER)}
    absent = [key for key in encoder if key not in state and not key.endswith("batches_tracked")]
    if absent:
        raise ValueError(
            f"of another network: neither its head nor its encoder is there ({_some(absent)} "
            f"missing; the file has {_some(list(state))})"
        )
    found = {encoder[key]: value for key, value in state.items() if key in encoder}
    _check_shapes(found, own)
    fresh = [key for key in own if key not in found]
    unused = [key for key in state if key not in encoder]
    return FittedWeights({**own, **own_copies(found)}, fresh, unused)


def _check_names(inside: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    missing = [key for key in own if key not in inside]
    more = [key for key in inside if key not in own]
    if missing or more:
        what = [f"{_some(missing)} missing"] * bool(missing) + [f"{_some(more)} too many"] * bool(
            more
        )
        raise ValueError(f"of another network ({'; '.join(what)}): pass its name and encoder")


def _check_classes(inside: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    for key in (key for key in own if key.startswith(_HEAD)):
        if inside[key].shape[:1] != own[key].shape[:1]:
            raise ValueError(
                f"the pruned weights have {len(inside[key])} classes, the network has "
                f"{len(own[key])}: start from dense ones"
            )


def _check_shapes(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    for key, value in found.items():
        if value.shape != own[key].shape:
            raise ValueError(
                f"{key} is {tuple(value.shape)}, the network has {tuple(own[key].shape)}: pass the "
                "encoder, in_channels and options that it was built with"
            )


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
