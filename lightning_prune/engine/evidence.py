"""Collects what a decision rests on, from training data."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from lightning_prune.engine.calibration import measured_losses
from lightning_prune.engine.front_end import FrontEnd
from lightning_prune.functional.reconstruction.elimination import Elimination
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.observe.activations import ObjectActivations
from lightning_prune.policies.criteria.criterion import Criterion, Need

GRADIENTS: frozenset[Need] = frozenset({"gradients", "batch_gradients"})


@dataclass(frozen=True)
class Collected:
    """What was collected; gradients are in the parameters' ``.grad``.

    Attributes:
        objects: Activations at objects, of no layer where nobody needs them.
        outputs: Source's name -> mean over images of the criterion's ``output_values``.
        eliminations: Group -> what its consumers lose at each width.
    """

    objects: ObjectActivations = field(default_factory=lambda: ObjectActivations(()))
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    eliminations: Mapping[str, Elimination] = field(default_factory=dict)


@contextmanager
def evidence(
    front: FrontEnd,
    criterion: Criterion,
    needs: frozenset[Need],
    groups: ChannelGroups,
    names: Sequence[str],
    images: int | None,
    beside_chance: bool = False,
    widths: Mapping[str, Sequence[int]] | None = None,
) -> Iterator[Collected]:
    """Collect what is needed for a decision; gradients are there until the block ends.

    Args:
        front: Whose data and processes are used.
        criterion: The criterion that receives gradients, batch by batch.
        needs: What is needed: that of the criterion, and of what uses it.
        groups: All groups of the model.
        names: Those that are decided.
        images: Training images whose loss is differentiated, or that outputs are averaged over.
        beside_chance: Whether activations are collected under random labels too.
        widths: Group -> widths whose losses are measured, where losses are needed.
    """
    # One layer may show the channels of several groups.
    sources = list(dict.fromkeys(m.layer for name in names for m in groups[name].sources))
    objects, outputs = ObjectActivations(()), {}
    if "clusters" in needs:
        objects = front.object_activations(sources, beside_chance)
    if "activations" in needs:
        means = front.output_means(groups, names, criterion.output_values, images)
        outputs = {name: mean.value for name, mean in means.items()}
    eliminations = measured_losses(front, groups, widths or {}, images) if "losses" in needs else {}
    collected = Collected(objects, outputs, eliminations)
    if not needs & GRADIENTS:
        yield collected
        return
    criterion.start()
    add = partial(criterion.add_batch, front.model, groups, names)
    with front.loss_gradients(images, add):
        sums = criterion.sums
        for name in names:
            if name in sums:
                sums[name] = front.total(sums[name])
        yield collected
