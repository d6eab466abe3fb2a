"""Whether the numbers of a file can be those of a module."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.files.file_error import printable
from lightning_prune.graph.names import plain_name


def check_values(module: nn.Module, tensors: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse numbers that loading would turn silently into others, and impossible statistics.

    Complex, sparse and quantized tensors for real dense ones, whole numbers for weights, variances
    below zero, counts of batches that are negative, NaN or infinite. Weights that are NaN are not
    refused: whoever keeps them can look at them.

    Args:
        module: Where they are to be loaded.
        tensors: Name within the module -> tensor; names that the module lacks are ignored.
        prefix: What the names begin with in the file, for the message.

    Raises:
        ValueError: the message names the layer.
    """
    own: list[tuple[str, Tensor]] = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for name, mine in own:
        plain = plain_name(name)
        value = tensors.get(name, tensors.get(plain))
        if isinstance(value, Tensor):
            problem = _problem(plain, value, mine)
            if problem is not None:
                raise ValueError(f"{printable(prefix + plain, 200)} {problem}")


def _problem(name: str, value: Tensor, mine: Tensor) -> str | None:
    if value.layout != mine.layout or value.is_quantized != mine.is_quantized:
        kind = "quantized" if value.is_quantized else str(value.layout).removeprefix("torch.")
        return f"is {kind} in the file and not in the model: store it as an ordinary tensor"
    if value.is_complex() and not mine.is_complex():
        return f"is {_type(value)} in the file and {_type(mine)} in the model: the file was altered"
    real = mine.is_floating_point() or mine.is_complex()
    if real and not (value.is_floating_point() or value.is_complex()):
        return (
            f"holds whole numbers ({_type(value)}) in the file and {_type(mine)} in the model: "
            "quantized or altered"
        )
    if value.is_meta or value.numel() == 0 or value.numel() > 2**24 or value.is_complex():
        return None
    last = name.rpartition(".")[2]
    if last == "running_var" and bool((value.detach() < 0).any()):
        return "is a variance below zero in the file: it was altered"
    if last == "num_batches_tracked" and not _is_count(value):
        return "is no count of batches in the file: it was altered"
    if not real and value.is_floating_point() and not bool((value == value.round()).all()):
        return f"holds fractions in the file and is {_type(mine)} in the model: it was altered"
    return None


def _is_count(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all() and (value >= 0).all() and (value < 2.0**62).all())


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
