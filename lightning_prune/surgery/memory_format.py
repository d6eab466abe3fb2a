"""The memory format of tensors (channels last), kept where others take their place."""

from collections.abc import Iterable, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def memory_format_of(values: Tensor) -> torch.memory_format:
    """Return the memory format that a tensor's strides say; contiguous where they fit several.

    Kernels go by the strides, also where the size of a dimension is 1 and any would do.

    >>> memory_format_of(torch.zeros(4, 2, 1, 1).to(memory_format=torch.channels_last))
    torch.channels_last
    >>> memory_format_of(torch.zeros(4, 2, 1, 1))
    torch.contiguous_format
    """
    last = _LAST.get(values.ndim)
    if last is None or values.stride() == _strides(values, torch.contiguous_format):
        return torch.contiguous_format
    same = values.stride() == _strides(values, last)
    return last if same else torch.contiguous_format


def laid_out_like(values: Tensor, pattern: Tensor) -> Tensor:
    """Return a tensor in the memory format of another one of as many dimensions.

    Args:
        values: Any values.
        pattern: A tensor in the channels-last format; in another one, ``values`` is returned as it
            is.

    >>> pattern = torch.zeros(8, 4, 3, 3).to(memory_format=torch.channels_last)
    >>> laid_out_like(torch.zeros(8, 2, 3, 3), pattern).stride()
    (18, 1, 6, 2)
    """
    wanted = memory_format_of(pattern)
    if wanted is torch.contiguous_format or values.ndim != pattern.ndim:
        return values
    return _laid_out(values, wanted)


@torch.no_grad()
def lay_out_channels_last(modules: Iterable[nn.Module]) -> None:
    """Put the parameters and buffers of four dimensions in the channels-last format, in place.

    Parameters stay the objects that they are: optimizers and DDP hold them.
    """
    for module in modules:
        for values in [*module.parameters(), *module.buffers()]:
            if values.ndim == 4:
                values.data = _laid_out(values.data, torch.channels_last)


def lay_out_states(optimizers: Iterable[Optimizer]) -> None:
    """Put what optimizers remember of parameters in the memory format of these."""
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    state[name] = laid_out_like(value, parameter)


def lay_out_plainly(state: MutableMapping[str, Any]) -> None:
    """Make the tensors of a state dict contiguous, as files hold them; others stay shared.

    >>> state = {"weight": torch.zeros(4, 2, 3, 3).to(memory_format=torch.channels_last)}
    >>> lay_out_plainly(state)
    >>> state["weight"].is_contiguous()
    True
    """
    for name, value in state.items():
        state[name] = _plain(value)


def plainly_laid_out(content: Any) -> Any:
    """Return nested lists and dicts with their tensors contiguous; the originals stay."""
    return tree_map(_plain, content)


def _plain(value: Any) -> Any:
    # Sparse and quantized tensors have no strides of this kind.
    if isinstance(value, Tensor) and value.layout is torch.strided and value.ndim in _LAST:
        return _laid_out(value.detach(), torch.contiguous_format)
    return value


def _laid_out(values: Tensor, wanted: torch.memory_format) -> Tensor:
    if values.stride() == _strides(values, wanted):
        return values
    # Not contiguous(...), which takes strides for right that differ where a size is 1.
    return torch.empty_like(values, memory_format=wanted).copy_(values)


def _strides(values: Tensor, wanted: torch.memory_format) -> tuple[int, ...]:
    return torch.empty(values.shape, device="meta", memory_format=wanted).stride()
