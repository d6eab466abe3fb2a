"""Carries an optimizer across a cut, and clears what it remembers."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.surgery.cut import PrunedChannels, Replacement

_Replaced = Mapping[int, tuple[str, Replacement]]
_INITIAL = {"step_size": "lr"}
"""State tensors that do not start at 0 (Rprop), and the option of the group that they start at."""


def rebind_optimizer(optimizer: Optimizer, pruned: PrunedChannels) -> None:
    """Replace the old parameters of a cut by the new ones.

    The parameter groups keep their order and options, so that schedulers, gradient scalers and
    monitors stay valid. State tensors of the parameter's shape are cut alike (``step`` stays).
    Optimizers within the optimizer (SAM, Lookahead) follow, and so do lists and dicts of
    parameters that it keeps beside its groups.

    Args:
        optimizer: Any optimizer that held the old parameters; parameters it never held are left.
        pruned: What ``cut_channels`` returned.

    Warns:
        UserWarning: a state without the parameter's shape (Adafactor, Shampoo; LBFGS, whose state
            is one vector of all parameters) had to start again.
    """
    replaced = {id(r.old): (name, r) for name, r in pruned.parameters.items()}
    lost: dict[str, list[str]] = {}
    for part in _family(optimizer):
        if _holds(part, replaced):
            _forget_flat(part)
        for parameter in [p for p in part.state if id(p) in replaced]:
            name, replacement = replaced[id(parameter)]
            state = part.state.pop(parameter)
            factored = _factored(state, replacement.old.shape)
            if factored:
                lost.setdefault(", ".join(factored), []).append(name)
                start = _initial_state(part, replacement.new)
                if start:
                    part.state[replacement.new] = start
                continue
            part.state[replacement.new] = {
                key: replacement.select(value)
                if isinstance(value, Tensor) and value.shape == replacement.old.shape and value.ndim
                else value
                for key, value in state.items()
            }
    for part in _family(optimizer):
        for name, value in list(vars(part).items()):
            after = value if name == "state" else _swapped(value, replaced)
            if after is not value:
                setattr(part, name, after)
    for keys, names in lost.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        warnings.warn(
            f"{type(optimizer).__name__} keeps {keys} of {names[0]}{others} in a form that cannot "
            "be cut: its state for these parameters starts again",
            stacklevel=2,
        )


def keep_groups(before: Optimizer, after: Optimizer) -> int:
    """Add to a rebuilt optimizer the trained parameters that only the old one held.

    Groups that a callback had added are not among those that ``configure_optimizers`` makes.

    Returns:
        The number of parameters.

    >>> a, b = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    >>> before = torch.optim.SGD([a], 0.1)
    >>> before.add_param_group({"params": [b], "lr": 0.01})
    >>> after = torch.optim.SGD([a], 0.1)
    >>> keep_groups(before, after), [group["lr"] for group in after.param_groups]
    (1, [0.1, 0.01])
    """
    held = {id(p) for group in after.param_groups for p in group["params"]}
    kept = 0
    for group in before.param_groups:
        lost = [p for p in group["params"] if id(p) not in held and p.requires_grad]
        if lost:
            options = {name: group[name] for name in after.defaults if name in group}
            after.add_param_group({**options, "params": lost})
            kept += len(lost)
    return kept


def clear_statistics(optimizer: Optimizer) -> None:
    """Clear momentum and second moments of every parameter; hyper-parameters stay."""
    for part in _family(optimizer):
        _forget_counts(part)
        part.state.clear()
        for parameter in (p for group in part.param_groups for p in group["params"]):
            start = _initial_state(part, parameter)
            if not start:
                break
            part.state[parameter] = start


@torch.no_grad()
def clear_rows(optimizers: Iterable[Optimizer], parameter: Tensor, dim: int, rows: Tensor) -> None:
    """Clear what optimizers remember of some rows of a parameter; ``step`` stays.

    Args:
        optimizers: Any optimizers; those that do not train the parameter are left alone.
        parameter: The parameter.
        dim: Dimension of the rows.
        rows: (n,) int64 positions in it.

    Warns:
        UserWarning: a factored state (Adafactor, Shampoo, LBFGS) has no rows: all of it starts
            again.

    >>> weight = torch.nn.Parameter(torch.zeros(2, 1))
    >>> optimizer = torch.optim.SGD([weight], 0.1, momentum=0.9)
    >>> weight.grad = torch.ones(2, 1)
    >>> optimizer.step()
    >>> clear_rows([optimizer], weight, 0, torch.tensor([1]))
    >>> optimizer.state[weight]["momentum_buffer"].tolist()
    [[1.0], [0.0]]
    """
    if not len(rows):
        return
    for optimizer in (part for outer in optimizers for part in _family(outer)):
        group = next((g for g in optimizer.param_groups if _among(parameter, g["params"])), {})
        if group:
            _forget_flat(optimizer)
        state = optimizer.state.get(parameter)
        if not state:
            continue
        factored = _factored(state, parameter.shape)
        if factored:
            warnings.warn(
                f"{type(optimizer).__name__} keeps {', '.join(factored)} in a form without rows: "
                "its whole state for this parameter starts again",
                stacklevel=2,
            )
            optimizer.state[parameter] = _initial_state(optimizer, parameter)
            if not optimizer.state[parameter]:
                del optimizer.state[parameter]
            continue
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim:
                start = float(group.get(_INITIAL.get(key, ""), 0.0))
                value.index_fill_(dim, rows.to(value.device), start)


def assert_bound(optimizers: Iterable[Optimizer], pruned: PrunedChannels) -> None:
    """Check that no optimizer still holds a parameter that the cut replaced.

    Raises:
        RuntimeError: an optimizer would continue updating weights that the model no longer has.
    """
    dead = {id(r.old): name for name, r in pruned.parameters.items()}
    for optimizer in (part for outer in optimizers for part in _family(outer)):
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            if id(parameter) in dead:
                raise RuntimeError(
                    f"{type(optimizer).__name__} still holds {dead[id(parameter)]} as it was "
                    "before the cut: call rebind_optimizer after cut_channels"
                )


# --- what optimizers are made of --------------------------------------------------------------


def _family(optimizer: Optimizer) -> Iterator[Optimizer]:
    """Yield an optimizer and those that it wraps, each once."""
    waiting: list[Any] = [optimizer]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, list | tuple):
            waiting += one
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, Optimizer) and id(one) not in seen:
            seen.add(id(one))
            waiting += [v for k, v in vars(one).items() if k not in ("state", "param_groups")]
            yield one


def _holds(optimizer: Optimizer, replaced: _Replaced) -> bool:
    return any(id(p) in replaced for group in optimizer.param_groups for p in group["params"])


def _among(parameter: Tensor, parameters: Iterable[Tensor]) -> bool:
    return any(parameter is other for other in parameters)


def _forget_counts(optimizer: Optimizer) -> None:
    """Make an optimizer of flat vectors (LBFGS) count its parameters again."""
    if hasattr(optimizer, "_numel_cache"):
        setattr(optimizer, "_numel_cache", None)  # noqa: B010 - no such stub


def _forget_flat(optimizer: Optimizer) -> None:
    """Drop a state that is one vector of all parameters: no part of it belongs to one of them."""
    _forget_counts(optimizer)
    for group in optimizer.param_groups:
        whole = sum(p.numel() for p in group["params"])
        if len(group["params"]) < 2:
            continue
        for state in (optimizer.state.get(p, {}) for p in group["params"]):
            if any(value.numel() == whole for value in _tensors(list(state.values()))):
                warnings.warn(
                    f"{type(optimizer).__name__} keeps one vector of all parameters, which cannot "
                    "be changed in places: its whole state starts again",
                    stacklevel=3,
                )
                optimizer.state.clear()
                return


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _factored(state: Mapping[str, Any], shape: torch.Size) -> list[str]:
    """Return what a state holds that is neither a number nor of the parameter's shape."""
    return [
        key
        for key, value in state.items()
        if any(v.numel() > 1 and v.shape != shape for v in _tensors([value]))
    ]


def _initial_state(optimizer: Optimizer, parameter: Tensor) -> dict[str, Any]:
    """Return the state that an optimizer's constructor gives a parameter (Adagrad); mostly none."""
    if not optimizer.defaults:
        return {}
    twin = nn.Parameter(torch.zeros_like(parameter))
    try:
        made = type(optimizer)([twin], **optimizer.defaults)
    except Exception:  # its constructor takes other arguments than it has options
        return {}
    return dict(made.state[twin]) if twin in made.state else {}


def _swapped(value: Any, replaced: _Replaced) -> Any:
    """Replace parameters in lists and dicts, in their place."""
    if isinstance(value, Tensor):
        return replaced[id(value)][1].new if id(value) in replaced else value
    if isinstance(value, list):
        value[:] = [_swapped(part, replaced) for part in value]
    elif type(value) is tuple and any(id(part) in replaced for part in value):
        return tuple(_swapped(part, replaced) for part in value)
    elif isinstance(value, dict):
        for key in list(value):
            own = value[key]
            if isinstance(key, Tensor) and id(key) in replaced:
                replacement = replaced[id(key)][1]
                del value[key]
                same = isinstance(own, Tensor) and own.shape == replacement.old.shape
                value[replacement.new] = replacement.select(own) if same else own
            else:
                value[key] = _swapped(own, replaced)
    return value
