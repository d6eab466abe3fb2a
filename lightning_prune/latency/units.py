"""What a runtime computes in one go: the layers of a network with their sizes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_prune.graph.forward_pass import call, untouched
from lightning_prune.graph.layer_kinds import is_depthwise
from lightning_prune.graph.names import plain_name

Kind = Literal["conv", "depthwise", "linear"]
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Unit:
    """A kernel with all sizes that its time depends on; layers of equal units share their times.

    Attributes:
        kind: ``conv`` of one group, ``depthwise`` or ``linear``.
        outputs: Dense width of what it makes.
        inputs: Dense width of what it reads; 1 of a depthwise one, whose widths are equal.
        size: Sizes of its input behind the channels; of a linear layer the number of rows alone.
        batch: Samples at once; 1 of a linear layer, whose rows count them.
        kernel: Sizes of the kernel; () of a linear layer.
        stride: One for each of them.
        padding: At both sides of each.
        dilation: One for each of them.
    """

    kind: Kind
    outputs: int
    inputs: int
    size: tuple[int, ...]
    batch: int = 1
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()


@torch.no_grad()
def layer_units(
    model: nn.Module, example_input: Any, forward: Callable[[nn.Module, Any], Any] | None = None
) -> dict[str, Unit]:
    """Return the units of the layers whose kernels can be measured alone, in their order.

    Convolutions of one group or depthwise ones, padded with zeros, and linear layers, as far as
    they run once in a forward pass.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(32, 5))
    >>> units = layer_units(net, torch.zeros(1, 3, 2, 2))
    >>> units["0"].kernel, units["2"].size
    ((3, 3), (1,))
    """
    found: dict[str, Unit] = {}
    calls: dict[str, int] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(layer: nn.Module, inputs: Any, _: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            unit = _unit(layer, inputs[0]) if inputs and isinstance(inputs[0], Tensor) else None
            if unit is not None:
                found[name] = unit

        return record

    handles = [
        module.register_forward_hook(hook(plain_name(name)))
        for name, module in model.named_modules()
        if isinstance(module, (*_CONVOLUTIONS, nn.Linear))
    ]
    try:
        with untouched(model):
            model.eval()
            (forward or call)(model, example_input)
    finally:
        for handle in handles:
            handle.remove()
    return {name: unit for name, unit in found.items() if calls[name] == 1}


def _unit(layer: nn.Module, x: Tensor) -> Unit | None:
    if isinstance(layer, nn.Linear):
        rows = x.numel() // x.shape[-1]
        return Unit("linear", layer.out_features, layer.in_features, (rows,))
    assert isinstance(layer, _CONVOLUTIONS)
    depthwise = is_depthwise(layer)
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return None
    if (layer.groups > 1 and not depthwise) or x.ndim != len(layer.kernel_size) + 2:
        return None
    return Unit(
        "depthwise" if depthwise else "conv",
        layer.out_channels,
        1 if depthwise else layer.in_channels,
        tuple(x.shape[2:]),
        len(x),
        tuple(layer.kernel_size),
        tuple(layer.stride),
        tuple(int(each) for each in layer.padding),
        tuple(layer.dilation),
    )
