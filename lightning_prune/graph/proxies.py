"""Ordinary layers in the places of custom ones, for a while."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from lightning_prune.graph.custom_layer import CustomLayer


@contextmanager
def proxies_in_place(model: nn.Module, custom: Mapping[str, CustomLayer]) -> Iterator[None]:
    """Replace custom layers by their proxies while the block runs."""
    owners = []
    for name, layer in custom.items():
        path, _, child = name.rpartition(".")
        owner = model.get_submodule(path)
        proxy = layer.proxy().eval()
        like = next(iter([*layer.parameters(), *layer.buffers()]), None)  # type: ignore[attr-defined]
        owners.append((owner, child, layer))
        owner._modules[child] = proxy if like is None else proxy.to(like.device, like.dtype)
    try:
        yield
    finally:
        for owner, child, layer in owners:
            owner._modules[child] = layer  # type: ignore[assignment]
