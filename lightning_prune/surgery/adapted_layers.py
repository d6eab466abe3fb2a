"""Layers whose own forward pass cannot compute with fewer channels, made to compute with them."""

from collections.abc import Callable, Iterable

from torch import nn

from lightning_prune.surgery.pruned_attention import adapt_attention

_ADAPT: dict[type[nn.Module], Callable[..., bool]] = {nn.MultiheadAttention: adapt_attention}
"""Kind of layer -> what makes it compute with the tensors and numbers that it has."""


def adapt_layers(model: nn.Module, touched: Iterable[nn.Module]) -> None:
    """Make layers from which something was cut compute with what is left.

    Args:
        model: The model after its tensors and numbers were changed.
        touched: The modules that held them: a layer itself, or a layer inside of it.

    >>> net = nn.Sequential(nn.MultiheadAttention(8, 2))
    >>> inner = net[0].out_proj
    >>> inner.weight, inner.bias = nn.Parameter(inner.weight[:6]), nn.Parameter(inner.bias[:6])
    >>> adapt_layers(net, [inner])
    >>> type(net[0]).__name__
    'PrunedMultiheadAttention'
    """
    changed = set(touched)
    for module in model.modules():
        if changed.isdisjoint([module, *module.children()]):
            continue
        for kind, adapt in _ADAPT.items():
            if isinstance(module, kind):
                adapt(module)
