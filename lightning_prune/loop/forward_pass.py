"""How a user's forward function is called with made-up inputs."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lightning_prune.graph.forward_pass import call
from lightning_prune.surgery.compare import noise_like

Forward = Callable[[nn.Module, Any], Any]


def example_inputs(shapes: Sequence[Sequence[int]], container: str | None, model: nn.Module) -> Any:
    """Return seeded noise of some shapes, on the model's device and in its precision.

    Args:
        shapes: One shape of each input.
        container: "tuple": several inputs are packed in a tuple; otherwise in a list. One input
            comes as it is.
        model: The model.

    >>> example_inputs([[1, 3]], None, nn.Linear(3, 1)).shape
    torch.Size([1, 3])
    """
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    inputs = [noise_like(weight.new_zeros(tuple(shape)), n) for n, shape in enumerate(shapes)]
    if len(inputs) == 1:
        return inputs[0]
    return tuple(inputs) if container == "tuple" else inputs


def as_forward(
    forward_fn: Callable[..., Any] | None, number: int, model: nn.Module | None = None
) -> Forward:
    """Return ``(model, inputs) -> outputs`` from a function as users write it.

    Args:
        forward_fn: ``f(x)`` with one input, such as ``model.forward``; with several ``f(a, b)``,
            where it requires as many arguments, or ``f(inputs)``; or ``f(model, inputs)``. None:
            the plain call of the model.
        number: How many inputs there are.
        model: The model that a function without a ``model`` argument calls: the result calls a
            copy of it where it is given one.

    >>> double = as_forward(lambda x: 2 * x, 1)
    >>> add = as_forward(lambda a, b: a + b, 2)
    >>> double(nn.Identity(), 3), add(nn.Identity(), [3, 4])
    (6, 7)
    """
    if forward_fn is None:
        return call
    if not callable(forward_fn):
        raise ValueError(f"forward_fn={forward_fn!r}: pass a function such as model.forward")
    function = forward_fn
    required = _required(function)
    spread = number > 1 and required == number
    if required == 2 and not spread:
        return lambda model, inputs: function(model, inputs)

    def forward(given: nn.Module, inputs: Any) -> Any:
        with _in_place_of(model, given):
            return function(*inputs) if spread else function(inputs)

    return forward


@contextmanager
def _in_place_of(model: nn.Module | None, given: nn.Module) -> Iterator[None]:
    """Make whoever holds the model call a copy of it: they change what they are made of."""
    if model is None or given is model or type(given) is not type(model):
        yield
        return
    own, other = model.__dict__, given.__dict__
    model.__dict__, given.__dict__ = other, own
    try:
        yield
    finally:
        model.__dict__, given.__dict__ = own, other


def _required(function: Callable[..., Any]) -> int:
    """Count the positional arguments that a function cannot do without."""
    try:
        parameters = inspect.signature(
            function.forward if isinstance(function, nn.Module) else function
        ).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)
