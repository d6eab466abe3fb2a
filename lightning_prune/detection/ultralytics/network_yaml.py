"""The YAML that a network of Ultralytics is built of: what of it may be passed on to be built."""

import copy
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

PRUNED = "lightning_prune"
"""Key that a pruned network's YAML has besides: its record, and what note replaced."""
NOTE = (
    "this network was pruned, its widths are in its weights and not in a YAML: train it with "
    "YOLO(file).train(trainer=lightning_prune.pruned_trainer, ...)"
)
_LAYERS, _DEPTH, _NUMBER, _TEXT = 500, 8, 1_000_000, 80
_WORD = re.compile(r"[\w.\-\[\], ]*")
_LAYER = re.compile(r"[A-Za-z_][\w.]*")
_ACTIVATION = re.compile(r"(torch\.)?nn\.[A-Za-z0-9]+\((\w+=)?[\w.\-]*(, ?(\w+=)?[\w.\-]+)*\)")
_LOADS = {"TorchVision", "Index"}
"""Layers that fetch the weights of others."""


def check_yaml(yaml: Mapping[str, Any]) -> None:
    """Refuse what would not describe a network: their builder evaluates texts in it.

    Raises:
        ValueError: a text is no word, a number or list is too large, or a part is missing.

    >>> check_yaml({"backbone": [[-1, 1, "Conv", [64, 3, 2]]], "head": [], "activation": "exit()"})
    Traceback (most recent call last):
    ...
    ValueError: its YAML has activation='exit()': a layer of torch.nn, such as nn.ReLU()
    """
    activation = yaml.get("activation")
    if activation is not None and not _ACTIVATION.fullmatch(str(activation)):
        raise ValueError(
            f"its YAML has activation={str(activation)[:_TEXT]!r}: a layer of torch.nn, such as "
            "nn.ReLU()"
        )
    for part in ("backbone", "head"):
        layers = yaml.get(part)
        if not isinstance(layers, list) or len(layers) > _LAYERS:
            raise ValueError(f"its YAML has no list of layers as `{part}`")
        for layer in layers:
            if not isinstance(layer, list | tuple) or len(layer) != 4:
                raise ValueError(f"a layer of its YAML is {str(layer)[:_TEXT]}: four entries")
            name = layer[2]
            if not isinstance(name, str) or not _LAYER.fullmatch(name) or name in _LOADS:
                raise ValueError(f"a layer of its YAML is {str(name)[:_TEXT]!r}: no layer's name")
    _check(
        {key: value for key, value in yaml.items() if key not in ("activation", "yaml_file")},
        "its YAML",
        0,
    )


def _check(value: Any, place: str, depth: int) -> None:
    if depth > _DEPTH:
        raise ValueError(f"{place} is nested too deep")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check(inner, f"{place}: {str(key)[:_TEXT]}", depth + 1)
    elif isinstance(value, str):
        if len(value) > _TEXT or not _WORD.fullmatch(value):
            raise ValueError(f"{place} is {value[:_TEXT]!r}: a word or a number")
    elif isinstance(value, Sequence):
        for inner in value:
            _check(inner, place, depth + 1)
    elif isinstance(value, int | float):
        if not math.isfinite(value) or abs(value) > _NUMBER:
            raise ValueError(f"{place} has {value}: at most {_NUMBER}")
    elif value is not None:
        raise ValueError(f"{place} has a {type(value).__name__}")


def with_note(
    yaml: Mapping[str, Any], record: str, activations: Mapping[str, str]
) -> dict[str, Any]:
    """Return the YAML of a pruned network: who builds a dense one of it reads ``NOTE``.

    Args:
        yaml: Of the dense network.
        record: The architecture record, as text.
        activations: What the YAML does not say of it.
    """
    noted = copy.deepcopy(dict(yaml))
    first = noted["backbone"][0]
    noted[PRUNED] = {"layer": first[2], "record": record, "activations": dict(activations)}
    noted["backbone"][0] = [*first[:2], NOTE, *first[3:]]
    return noted


def without_note(yaml: Mapping[str, Any]) -> dict[str, Any]:
    """Return the YAML of the dense network that a pruned one came from; a dense one's as it is."""
    plain = copy.deepcopy(dict(yaml))
    note = plain.pop(PRUNED, None)
    if isinstance(note, Mapping):
        first = plain["backbone"][0]
        plain["backbone"][0] = [*first[:2], note["layer"], *first[3:]]
    return plain
