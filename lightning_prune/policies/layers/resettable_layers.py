"""Chooses the layers whose channels are tracked and reset."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from lightning_prune.graph.names import modules_by_name, plain_name
from lightning_prune.graph.outputs import LayerOutput
from lightning_prune.surgery.reinitialize import why_not_resettable


def resettable_layers(
    model: nn.Module, outputs: Mapping[str, LayerOutput], patterns: Sequence[str] | None
) -> dict[str, LayerOutput]:
    """Return the layers that names or patterns choose, in the order of the forward pass.

    Args:
        model: The model.
        outputs: Its ``layer_outputs``.
        patterns: Layer names or shell patterns; None: every layer with an activation behind it
            whose channels can be reset.

    Raises:
        ValueError: a pattern matches no layer of the forward pass, or a layer that is named cannot
            be reset; a pattern passes over it.

    >>> from lightning_prune.graph.outputs import layer_outputs
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> list(resettable_layers(net, layer_outputs(net, torch.zeros(1, 2)), None))
    ['0']
    """
    modules = modules_by_name(model)
    tied = _tied_layers(model)
    against = {
        name: tied.get(name, reason)
        for name in outputs
        if (reason := why_not_resettable(modules[name])) is not None or name in tied
    }
    if patterns is None:
        return {n: o for n, o in outputs.items() if o.activated and n not in against}
    chosen: set[str] = set()
    for pattern in patterns:
        found = {name for name in outputs if fnmatchcase(name, pattern)}
        if not found:
            near = get_close_matches(pattern, list(outputs), n=3, cutoff=0.4)
            hint = f": did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ValueError(f"layers={pattern!r} matches no convolution or linear layer{hint}")
        if found <= against.keys():
            name = min(found)
            raise ValueError(f"layers={pattern!r}: {name} cannot be reset: {against[name]}")
        chosen |= found - against.keys()
    return {name: output for name, output in outputs.items() if name in chosen}


def _tied_layers(model: nn.Module) -> dict[str, str]:
    """Return the layers that share a parameter with another layer, with the reason."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(plain_name(name))
    return {
        name: f"it shares a parameter with {', '.join(n for n in shared if n != name)}"
        for shared in owners.values()
        if len(shared) > 1
        for name in shared
    }
