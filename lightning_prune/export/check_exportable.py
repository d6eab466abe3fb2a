"""Says before a conversion why a network cannot be converted as it is."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves


def check_exportable(model: nn.Module, example_input: Any) -> None:
    """Refuse weights and inputs that are not on the CPU, or not of 32 bits.

    Raises:
        ValueError: the message names the first such tensor and what to call.
    """
    for name, tensor in _tensors(model, example_input):
        if is_lazy(tensor):
            raise ValueError(f"{name} has no shape yet: call the network once before the export")
        if tensor.device.type == "meta":
            raise ValueError(f"{name} is on the meta device, without values: load the weights")
        if tensor.device.type != "cpu":
            raise ValueError(
                f"{name} is on {tensor.device}: call .cpu() on the network and its inputs first"
            )
        if tensor.dtype.is_complex:
            raise ValueError(f"{name} is {tensor.dtype}: complex numbers have no place in ONNX")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ValueError(
                f"{name} is {tensor.dtype}: call .float() on the network (on a copy, "
                "copy.deepcopy(model).float(), if it is still needed) and pass inputs in float32; "
                "half=True writes 16 bits"
            )


def _tensors(model: nn.Module, example_input: Any) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    for place, leaf in enumerate(tree_leaves(example_input)):
        if isinstance(leaf, Tensor):
            yield f"input {place}", leaf
    # Buffers of other kinds (a counter in float64, complex rotations) may well be converted.
    yield from (item for item in model.named_buffers() if item[1].device.type != "cpu")
