"""Layer and tensor names that survive ``torch.compile``."""

from torch import nn


def plain_name(name: str) -> str:
    """Strip what ``torch.compile`` inserts into a name.

    >>> plain_name("net._orig_mod.conv1.weight")
    'net.conv1.weight'
    """
    return name.replace("_orig_mod.", "")


def modules_by_name(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a model by their plain names."""
    return {plain_name(name): module for name, module in model.named_modules()}
