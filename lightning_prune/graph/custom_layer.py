"""What a layer that torch-pruning does not know says about its own channels."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_prune.graph.group import Member
from lightning_prune.graph.layers import Role


@runtime_checkable
class CustomLayer(Protocol):
    """A module that makes, carries or reads channels in a way of its own.

    A recurrent block, a norm over the channels or a convolution with a computed weight defines
    these methods, and is then masked and cut like any other layer. Its sizes must follow from its
    tensors: nothing but tensors, and the layers that PyTorch ships, is resized by a cut. What else
    a cut must change (an eps, a number of norm groups) it changes in ``follow_cut(replaced)``. A
    norm names its scale of single channels in ``channel_scale``.
    """

    def proxy(self) -> nn.Module:
        """Return one ordinary layer of the same channels in and out, for tracing.

        Its output must have the shape that the layer's own would have, up to axes that come after
        the channels.
        """
        ...

    def channel_dims(self, role: Role) -> list[tuple[str, int]]:
        """List its own tensors that hold channels in this role, each with its dimension."""
        ...

    def channel_members(self, role: Role) -> tuple[Member, ...] | str:
        """List the layers that share a role, named relative to this one, or say why none can.

        ``""`` is the layer itself. A member's ``channel`` counts the channels of the proxy. Of a
        recurrent block, which makes its channels and reads them again, members of all roles belong
        to the role ``producer``.
        """
        ...

    def bundle(self, role: Role) -> int:
        """Return how many channels can only go together: c, c + C / n, c + 2 C / n, ...; 1: each.

        Convolutions of n groups need it: all of their groups keep the same places.
        """
        ...

    def width_step(self, role: Role) -> int:
        """Return the number that a narrower width is a multiple of, in channels; 1: any."""
        ...

    def mixing_layers(self, role: Role) -> tuple[str, ...]:
        """Return the layers, named relative to this one, whose statistics change with the width.

        The cut then differs from the mask, and is reported instead of refused.
        """
        ...


class CarrierProxy(_BatchNorm):
    """Stands for a layer that passes each channel on by itself, whatever the shape (B, C, ...)."""

    def _check_input_dim(self, _input: Tensor) -> None:
        pass


def custom_layers(model: nn.Module) -> dict[str, Any]:
    """Return the outermost custom layers of a model by their full names."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if name and not inside and isinstance(module, CustomLayer):
            found[name] = module
    return found
