"""What keeps a model working where channels are masked: layers are refitted, norms re-estimated.

Source: He, Zhang, Sun, 2017, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV,
arXiv 1707.06168.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.engine.calibration_set import within_memory
from lightning_prune.engine.front_end import FrontEnd
from lightning_prune.functional.reconstruction.elimination import Elimination
from lightning_prune.graph.forward_pass import untouched
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel
from lightning_prune.graph.model_inputs import batch_length
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.selection.repaired_losses import repaired_losses
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.layer_matrix import is_matrix
from lightning_prune.surgery.masked_refit import masked_refit
from lightning_prune.surgery.places import Places, places_for
from lightning_prune.surgery.recalibrate import recalibrate_norms


def measured_losses(
    front: FrontEnd,
    groups: ChannelGroups,
    widths: Mapping[str, Sequence[int]],
    images: int | None,
) -> dict[str, Elimination]:
    """Measure what the consumers of groups lose at each width, from some training images.

    Args:
        front: Whose data and processes are used.
        groups: All groups of the model.
        widths: Group -> widths, descending from all channels.
        images: Training images over all processes; None: all.
    """
    front.agree_on_norms()
    batches = list(front.batches(images))
    with front.precision():
        places = _places(front, front.model, batches)
        return repaired_losses(
            front.model, groups, widths, batches, front.forward, places=places, total=front.total,
            progress=lambda names: front.progress(names, "Measuring losses"),
        )  # fmt: skip


def refit_masked(
    front: FrontEnd,
    groups: ChannelGroups,
    plan: PruningPlan,
    macs: MacModel,
    images: int,
) -> None:
    """Mask a plan, and refit every layer behind to what the model gives now; norms follow.

    Args:
        front: Whose data and processes are used.
        groups: All groups of the model.
        plan: What will be masked; what it adds to earlier masks still works.
        macs: How many values its layers read and make.
        images: Training images over all processes.
    """
    front.agree_on_norms()
    values = max((sum(pair) for pair in macs.values.values()), default=0)
    batches = within_memory(list(front.batches(images)), values)
    before = copy_module(front.model)
    with front.precision():
        places = _places(front, before, batches)
    layers = [name for name, layer in front.model.named_modules() if is_matrix(layer)]
    shown = iter(front.progress(layers, "Refitting layers"))
    masked_refit(
        front.model, before, groups, plan, batches, front.forward,
        places=places, context=front.precision, total=front.total,
        progress=lambda _: next(shown, None),
    )  # fmt: skip
    for _ in shown:  # those that no batch came to
        pass
    front.average_norms()
    front.apply_masks()


def reestimate_norms(front: FrontEnd, images: int) -> None:
    """Estimate norm statistics again from about ``images`` training images of all processes."""
    with front.precision():
        recalibrate_norms(front.model, front.batches(images), front.forward)
    front.average_norms()


def _places(front: FrontEnd, model: nn.Module, batches: Sequence[Any]) -> Places:
    saliency: Callable[[Any], Tensor] | None = getattr(model, "saliency", None)
    maps = []
    if callable(saliency):
        with torch.no_grad(), untouched(model):
            model.eval()
            maps = [saliency(front.forward(model, batch)) for batch in batches]
    images = torch.tensor(float(sum(map(batch_length, batches))), device=_device(model))
    return places_for(int(front.total(images)), maps=maps)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters(), torch.zeros(())).device
