"""Layer and tensor names that survive ``torch.compile``."""

from collections import defaultdict

from torch import nn


def layer_of(holder: str) -> str:
    """Return the layer that a module's tensors are the weight of.

    Parametrized layers hold what their weight is computed from in modules of their own.

    >>> layer_of("stem.conv.parametrizations.weight"), layer_of("stem.conv")
    ('stem.conv', 'stem.conv')
    """
    return holder.partition(".parametrizations.")[0]


def plain_name(name: str) -> str:
    """Strip what ``torch.compile`` inserts into a name.

    >>> plain_name("net._orig_mod.conv1.weight")
    'net.conv1.weight'
    """
    return name.replace("_orig_mod.", "")


def modules_by_name(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a model by their plain names."""
    return {plain_name(name): module for name, module in model.named_modules()}


def holders(model: nn.Module) -> dict[int, list[tuple[str, nn.Module, str]]]:
    """Return who holds each tensor of a model, by the tensor's ``id``: layer, module, name."""
    found: dict[int, list[tuple[str, nn.Module, str]]] = defaultdict(list)
    for layer, module in modules_by_name(model).items():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                found[id(tensor)].append((layer, module, name))
    return found
