"""Puts the weights of a file into a classifier's network."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn

from lightning_prune.vision.classifier_timm import build_network
from lightning_prune.vision.classifier_weights import ClassifierWeights

_NAMED = 3


def with_weights(
    network: nn.Module, found: ClassifierWeights, heads: Sequence[str], settings: Mapping[str, Any]
) -> tuple[nn.Module, bool]:
    """Return a network with the weights of a file, and whether its head came from there too.

    Position embeddings of other image sizes and the first layer of other channels are fitted as
    timm does; a head of another number of classes, or one that is absent, starts fresh with a
    warning.

    Args:
        network: Built by ``build_network`` with these settings.
        found: The weights, of a dense network.
        heads: Names of the layers that give the logits.
        settings: Arguments of ``build_network``.

    Raises:
        ValueError: the weights are of another network.
    """
    own, classes = network.state_dict(), found.classes(heads)
    complete = classes == settings["num_classes"]
    of_heads = {f"{head}.{part}" for head in heads for part in ("weight", "bias")}
    fresh = set() if complete else of_heads & own.keys()
    _compare_names(found, own.keys() - fresh, own.keys(), settings["name"])
    if not complete:
        has = "no class head" if classes is None else f"{classes} classes"
        warnings.warn(
            f"the weights have {has}, num_classes is {settings['num_classes']}: the class head "
            f"starts fresh, {len(fresh)} tensors of it",
            stacklevel=4,
        )
    tensors = {name: value for name, value in found.tensors.items() if name not in fresh}
    if all(value.shape == own[name].shape for name, value in tensors.items()):
        network.load_state_dict({**own, **tensors})
        return network, complete
    try:
        built = build_network(**settings, weights=found.tensors, weights_classes=classes)
    except ValueError as error:
        raise ValueError(f"weights={found.path} do not fit: {error}") from error
    return built, complete


def _compare_names(
    found: ClassifierWeights, needed: Collection[str], known: Collection[str], name: str
) -> None:
    missing = sorted(set(needed) - found.tensors.keys())
    unknown = sorted(found.tensors.keys() - set(known))
    parts = [
        f"{len(names)} {what} (such as {', '.join(names[:_NAMED])})"
        for names, what in ((missing, "missing"), (unknown, "not of it"))
        if names
    ]
    if parts:
        raise ValueError(
            f"weights={found.path} are of another network than name={name!r}: of its tensors "
            f"{' and '.join(parts)}; pass the name that they were trained under, and its arguments"
        )
