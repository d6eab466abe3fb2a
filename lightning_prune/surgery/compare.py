"""Compares what a model gives before and after surgery."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from lightning_prune.functional.named_tensors import named_tensors
from lightning_prune.graph.forward_pass import call, untouched
from lightning_prune.graph.names import modules_by_name


def noise_like(example: Any, seed: int = 0) -> Any:
    """Return seeded noise of an example's shape: zeros would hide what the weights do."""
    generator = torch.Generator().manual_seed(seed)

    def noise(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return torch.rand(value.shape, generator=generator).to(value)

    return tree_map(noise, example)


@contextmanager
def _full_precision(example: Any) -> Iterator[None]:
    tensors = (leaf for leaf in tree_leaves(example) if isinstance(leaf, Tensor))
    device = next((tensor.device.type for tensor in tensors), "cpu")
    with torch.autocast(device, enabled=False), _without_tf32():
        yield


@contextmanager
def _without_tf32() -> Iterator[None]:
    backends: Any = torch.backends
    try:
        before = backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        # The user has set precisions through the newer attributes, which forbid the older ones.
        owners = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
        precisions = [owner.fp32_precision for owner in owners]
        try:
            for owner in owners:
                owner.fp32_precision = "ieee"
            yield
        finally:
            for owner, precision in zip(owners, precisions, strict=True):
                owner.fp32_precision = precision
        return
    try:
        backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        yield
    finally:
        backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


@contextmanager
def _bypassed(model: nn.Module, names: Collection[str]) -> Iterator[None]:
    """Make layers return their input."""
    modules = modules_by_name(model)
    handles = [modules[n].register_forward_hook(lambda _m, x, _out: x[0]) for n in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def eval_outputs(
    model: nn.Module,
    example: Any,
    without: Collection[str] = (),
    forward: Callable[[nn.Module, Any], Any] = call,
) -> list[Tensor]:
    """Return the tensors that a model gives in eval mode; the model is left as it was.

    Autocast and TF32 are off: their rounding depends on the widths of the layers.

    Args:
        model: The model.
        example: Its inputs.
        without: Names of layers that hand their input on instead of computing.
        forward: How to call the model with them.
    """
    with untouched(model), torch.no_grad(), _full_precision(example), _bypassed(model, without):
        model.eval()
        tensors = named_tensors(forward(model, example)).values()
    return [tensor.clone() for tensor in tensors]


def largest_difference(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return the largest |difference| of paired tensors, each as a fraction of its largest value.

    NaN where only one side holds NaN or infinity in a place, infinity where shapes differ.

    >>> largest_difference([torch.tensor([0.0, 4.0])], [torch.tensor([1.0, 4.0])])
    0.25
    """
    worst = 0.0
    for a, b in zip(before, after, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.is_complex() and b.is_complex():
            a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
        if a.numel() and a.is_floating_point():
            a, b = a.double(), b.double()
            scale = float(torch.where(a.isfinite(), a, 0).abs().max()) or 1.0
            same = (a == b) | (a.isnan() & b.isnan())
            difference = float(torch.where(same, 0, a - b).abs().max()) / scale
            if not math.isfinite(difference):
                return math.nan  # which max() would lose
            worst = max(worst, difference)
    return worst
