"""Masks a plan and refits what is left: in one walk, or pass by pass where batches part ways."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_prune.graph.forward_pass import untouched
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.observe.walk import PathsDifferError, paths
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.compensate import compensate
from lightning_prune.surgery.layer_matrix import is_matrix
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.places import Places
from lightning_prune.surgery.recalibrate import recalibrate_norms
from lightning_prune.surgery.walked_refit import WalkedRefit, walked_refit


def masked_refit(
    model: nn.Module,
    dense: nn.Module,
    groups: ChannelGroups,
    plan: PruningPlan,
    batches: Sequence[Any],
    forward: Callable[[nn.Module, Any], Any],
    *,
    places: Places | None = None,
    ridge: float = 0.01,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    total: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[str], None] | None = None,
) -> WalkedRefit:
    """Mask a plan and refit what reads masked channels, by ``walked_refit`` if that is possible.

    Batches whose paths through the network differ cannot walk together. They are run one after the
    other instead: each layer that reads masked channels is refitted to the dense network on both
    sides (``compensate``), and batch norms are estimated again (``recalibrate_norms``).

    Args:
        model: The live model; it is masked and changed.
        dense: A copy of it from before, on the same device.
        groups: Its channel groups.
        plan: What is kept.
        batches: On the device of the model.
        forward: ``(model, batch) -> anything``.
        places: Which places the walk reads; None: 64 of each image.
        ridge: Regularization as a fraction of the mean squared input, positive.
        context: Makes a context for each pass, such as autocast.
        total: Sums a tensor over all processes; None: there is one.
        progress: Called with the name of each layer that the walk comes to.

    Returns:
        Errors of the walk; without one there are none, and ``left`` says so under "".

    Warns:
        UserWarning: the paths of batches differ.
    """
    try:
        if total is not None:
            _check_paths(model, batches, forward, context, total)
        return walked_refit(
            model, dense, groups, plan, batches, forward, places=places, ridge=ridge,
            context=context, total=total, progress=progress,
        )  # fmt: skip
    except PathsDifferError as error:
        reason = f"{error}; layers are refitted in separate passes, which repairs less"
        warnings.warn(reason, stacklevel=2)
    found = WalkedRefit(left={"": reason})
    restore(model, dense)  # the walk came half way
    places = places or Places()
    with context():
        compensate(
            model, groups, plan, lambda: batches, forward,
            ridge=ridge, positions=places.number, seed=places.seed, total=total,
        )  # fmt: skip
    ChannelMask(model, groups, plan).apply()
    with untouched(model), context():
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm):
                module.train()
                found.norms.append(name)
        recalibrate_norms(model, batches, forward)
    return found


def _check_paths(
    model: nn.Module,
    batches: Sequence[Any],
    forward: Callable[[nn.Module, Any], Any],
    context: Callable[[], AbstractContextManager[Any]],
    total: Callable[[Tensor], Tensor],
) -> None:
    """Raise PathsDifferError in all processes where the paths of any batches differ.

    A process that left a walk alone would have the others wait for it for ever.
    """
    device = next(model.parameters(), torch.zeros(())).device
    one = torch.ones((), dtype=torch.float64, device=device)
    if total(one.clone()) == 1:
        return  # the walk itself finds out
    with context():
        # Small enough that squares are exact.
        numbers = [path % (1 << 20) for path in paths(model, batches, forward, is_matrix)]
    seen = torch.tensor([numbers], dtype=torch.float64, device=device)
    count, sums, squares = (total(v) for v in (len(numbers) * one, seen.sum(), (seen**2).sum()))
    if count * squares != sums**2:
        raise PathsDifferError(
            "batches of several processes come to different layers: the forward pass branches on "
            "what it reads"
        )


@torch.no_grad()
def restore(model: nn.Module, dense: nn.Module) -> None:
    """Restore the numbers of a model, as wide as then, from a copy of it."""
    own, before = map(_numbers, (model, dense))
    for name, tensor in own.items():
        # Some losses and metrics keep buffers that are as long as the last batch made them.
        if name in before and before[name].shape == tensor.shape:
            tensor.copy_(before[name])


def _numbers(net: nn.Module) -> dict[str, Tensor]:
    # By name: a copy may have its children in another order.
    named = net.named_parameters, net.named_buffers
    return dict(chain.from_iterable(of(remove_duplicate=False) for of in named))
