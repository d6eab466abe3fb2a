"""Activations by name."""

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "none": nn.Identity,
}


def activation(name: str) -> nn.Module:
    """Build an activation.

    Raises:
        ValueError: the name is unknown.

    >>> activation("silu")
    SiLU()
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name!r}: allowed are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()
