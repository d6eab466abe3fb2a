"""Which tensors of a forward pass hold random numbers: they say nothing of channels."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_prune.functional.named_tensors import tensors_in
from lightning_prune.graph.labels import is_uniform, labels_of
from lightning_prune.graph.view_bases import view_of

_DRAWS = {
    "bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal",
    "normal_", "poisson", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like",
    "random_", "uniform_",
}  # fmt: skip
_DRAWN = "_drawn_at_random"


def is_drawn(tensor: Tensor) -> bool:
    """Return whether a traced tensor holds nothing but random numbers (dropout, noise)."""
    return getattr(tensor, _DRAWN, False)


def mark_drawn(name: str, given: Any, out: Any) -> None:
    """Mark what an operation drew at random, or made of nothing else.

    Args:
        name: The operation.
        given: What it read.
        out: Its result, or several; with labels they are not drawn, whatever they are made of.
    """
    drawn = name in _DRAWS or _made_of_drawn(list(tensors_in(given)))
    for tensor in tensors_in([out]):
        whole: Tensor | None = tensor
        while whole is not None and is_drawn(whole) != (drawn and labels_of(whole) is None):
            setattr(whole, _DRAWN, not is_drawn(whole))
            made = view_of(whole)
            whole = None if made is None else made[1]["self"]


def _made_of_drawn(tensors: Sequence[Tensor]) -> bool:
    return any(is_drawn(tensor) for tensor in tensors) and all(
        is_drawn(tensor) or all(is_uniform(tensor, dim) for dim in range(tensor.dim()))
        for tensor in tensors
    )
