"""Activations by name."""

from typing import Annotated

from torch import nn

from lightning_prune.annotations import one_of
from lightning_prune.validation import validated

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "none": nn.Identity,
}
ActivationName = Annotated[str, one_of(ACTIVATIONS)]


@validated
def activation(name: ActivationName) -> nn.Module:
    """Build an activation.

    Raises:
        ValueError: the name is unknown.

    >>> activation("silu")
    SiLU()
    """
    return ACTIVATIONS[name]()
