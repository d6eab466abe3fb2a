"""Carries an optimizer across a cut, and clears what it remembers."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_prune.surgery.cut import PrunedChannels, Replacement


def _carry_state(optimizer: Optimizer, replacement: Replacement, name: str) -> None:
    state = optimizer.state.pop(replacement.old, None)
    if state is None:
        return
    shape = replacement.old.shape
    factored = _factored(state, shape)
    if factored:
        warnings.warn(
            f"{type(optimizer).__name__} keeps {', '.join(factored)} of {name} in a form that "
            "cannot be cut: its state for this parameter starts anew",
            stacklevel=2,
        )
        return
    optimizer.state[replacement.new] = {
        key: replacement.select(value)
        if isinstance(value, Tensor) and value.shape == shape and value.ndim
        else value
        for key, value in state.items()
    }


def rebind_optimizer(optimizer: Optimizer, pruned: PrunedChannels) -> None:
    """Put the new parameters of a cut in the place of the old ones.

    The parameter groups keep their order and options, so that schedulers, gradient scalers and
    monitors stay valid. State tensors of the parameter's shape are cut alike (``step`` stays).

    Args:
        optimizer: Any optimizer that held the old parameters; parameters it never held are left.
        pruned: What ``cut_channels`` returned.

    Warns:
        UserWarning: a factored state (Adafactor, Shampoo, Muon) had to start anew.
    """
    by_old = {id(r.old): (name, r) for name, r in pruned.parameters.items()}
    for group in optimizer.param_groups:
        for place, parameter in enumerate(group["params"]):
            if id(parameter) in by_old:
                name, replacement = by_old[id(parameter)]
                _carry_state(optimizer, replacement, name)
                group["params"][place] = replacement.new


def clear_statistics(optimizer: Optimizer) -> None:
    """Forget momentum and second moments of every parameter; hyper-parameters stay."""
    optimizer.state.clear()


@torch.no_grad()
def clear_rows(optimizers: Iterable[Optimizer], parameter: Tensor, dim: int, rows: Tensor) -> None:
    """Forget what optimizers remember of some rows of a parameter; ``step`` stays.

    Args:
        optimizers: Any optimizers; those that do not train the parameter are left alone.
        parameter: The parameter.
        dim: Dimension of the rows.
        rows: (n,) int64 positions in it.

    Warns:
        UserWarning: a factored state (Adafactor, Shampoo, Muon) has no rows: all of it starts anew.

    >>> weight = torch.nn.Parameter(torch.zeros(2, 1))
    >>> optimizer = torch.optim.SGD([weight], 0.1, momentum=0.9)
    >>> weight.grad = torch.ones(2, 1)
    >>> optimizer.step()
    >>> clear_rows([optimizer], weight, 0, torch.tensor([1]))
    >>> optimizer.state[weight]["momentum_buffer"].tolist()
    [[1.0], [0.0]]
    """
    for optimizer in optimizers:
        state = optimizer.state.get(parameter)
        if not state or not len(rows):
            continue
        factored = _factored(state, parameter.shape)
        if factored:
            warnings.warn(
                f"{type(optimizer).__name__} keeps {', '.join(factored)} in a form without rows: "
                "its whole state for this parameter starts anew",
                stacklevel=2,
            )
            del optimizer.state[parameter]
            continue
        for value in state.values():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim:
                value.index_fill_(dim, rows.to(value.device), 0)


def _factored(state: Mapping[str, Any], shape: torch.Size) -> list[str]:
    return [
        key
        for key, value in state.items()
        if isinstance(value, Tensor) and value.numel() > 1 and value.shape != shape
    ]


def assert_bound(optimizers: Iterable[Optimizer], pruned: PrunedChannels) -> None:
    """Check that no optimizer still holds a parameter that the cut replaced.

    Raises:
        RuntimeError: an optimizer would go on updating weights that the model no longer has.
    """
    dead = {id(r.old): name for name, r in pruned.parameters.items()}
    for optimizer in optimizers:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            if id(parameter) in dead:
                raise RuntimeError(
                    f"{type(optimizer).__name__} still holds {dead[id(parameter)]} as it was "
                    "before the cut: call rebind_optimizer after cut_channels"
                )
