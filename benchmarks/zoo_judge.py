"""One model, pruned to half the channels of every group and looked at: what the zoo says of it."""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from lightning_prune.functional.widths.width import clip_width
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.layer_kinds import is_depthwise
from lightning_prune.graph.macs import MacModel, count_macs, measure_layers
from lightning_prune.graph.names import layer_of, plain_name
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.compare import eval_outputs, noise_like
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.masked_outputs import MaskedOutputs
from lightning_prune.surgery.scramble import scramble
from lightning_prune.surgery.trial_example import cast

FULL, PART = 0.6, 0.9
TOLERANCE = 1e-4
REASONS = 3
# What makes channels out of other values; a depthwise convolution only carries them.
_MAKERS = (
    nn.modules.conv._ConvNd | nn.Linear | nn.Bilinear | nn.Embedding | nn.MultiheadAttention
) | nn.RNNBase
Find = Callable[[nn.Module, Any], ChannelGroups]


def finders() -> dict[str, Find]:
    """Return how groups are found, by column: what each step brings shows between them.

    ``labels``: what the trace takes for groups. ``trial``: those that a trial cut accepts.
    ``attributes``: with sizes that modules hold changed too.
    """
    return {
        "labels": trace_groups,
        "trial": partial(build_groups, attributes=False),
        "attributes": build_groups,
    }


def kind_of(left: float) -> str:
    """Say how far a model was pruned by the fraction of its MACs that is left.

    >>> kind_of(0.3), kind_of(0.7), kind_of(0.95)
    ('full', 'part', 'none')
    """
    return "full" if left < FULL else "part" if left < PART else "none"


def scrambled(model: nn.Module, example: Any) -> nn.Module:
    """Return a copy whose weights hide no fault and of which it still makes numbers."""
    for gentle in (False, True):
        net = copy_module(model).eval()
        scramble(net, gentle=gentle)
        try:
            outputs = eval_outputs(net, example)
        except Exception:  # values that a forward pass does not take (boxes without an end)
            continue
        if all(bool(out.isfinite().all()) for out in outputs if out.is_floating_point()):
            return net
    return model


def half_of(groups: ChannelGroups, seed: int = 0) -> PruningPlan:
    """Keep half of the channels of every group, chosen at random."""
    generator = torch.Generator().manual_seed(seed)
    keep, channels = {}, {}
    for name, group in groups.items():
        wish = max(1, round(group.channels / 2))
        width = clip_width(wish, group.channels, None, group.step).width
        order = torch.randperm(group.channels, generator=generator)
        keep[name], channels[name] = order[:width].sort()[0], group.channels
    return PruningPlan(keep, channels)


def unlisted(model: nn.Module, groups: ChannelGroups) -> list[str]:
    """Return the layers that make channels and are neither in a group nor refused.

    A layer inside one that is named is named with it.

    >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
    >>> unlisted(net, trace_groups(net, torch.zeros(1, 2)))
    []
    """
    makers = (layer_of(name) for group in groups.values() for name in group.producers)
    known = {*makers, *groups.refused}
    found = []
    for name, layer in model.named_modules():
        plain = plain_name(name)
        parts = plain.split(".")
        around = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
        if isinstance(layer, _MAKERS) and not is_depthwise(layer) and not around & known:
            found.append(plain)
    return found


def refusals(refused: Mapping[str, str], macs: Mapping[str, int]) -> list[list[Any]]:
    """Sum up the reasons as ``[text, layers, fraction of the MACs]``, the costliest first.

    Names of layers and numbers are left out of the texts, so that equal reasons count together.

    >>> refusals({"a.0": "a.0 has 4 rows", "a.1": "a.1 has 8 rows"}, {"a.0": 6, "a.1": 2, "b": 8})
    [['* has # rows', 2, 0.5]]
    """
    counts: dict[str, int] = defaultdict(int)
    costs: dict[str, int] = defaultdict(int)
    for layer, reason in refused.items():
        words = (
            "*" if w.strip("',:;()") in refused or w.strip("',:;()") in macs else w
            for w in reason.split(" ")
        )
        text = re.sub(r"\b\d[\d.e+-]*", "#", " ".join(words))
        counts[text] += 1
        costs[text] += macs.get(layer, 0)
    total = max(1, sum(macs.values()))
    order = sorted(counts, key=lambda text: (-costs[text], -counts[text]))
    return [[text, counts[text], round(costs[text] / total, 4)] for text in order]


def failure(kind: str, where: str, error: Exception) -> dict[str, Any]:
    """Return what is said of a model that ended with an exception."""
    return {"kind": kind, "remark": f"{where}: {type(error).__name__}: {error}"[:300]}


def judge(model: nn.Module, example: Any, find: Find) -> dict[str, Any]:
    """Find the groups of a model, mask and cut half of each, and compare.

    Args:
        model: The model, its weights scrambled; it may be changed.
        example: Its input.
        find: How groups are found.

    Returns:
        ``kind`` (full, part, none, refused, wrong, crashed), ``left`` (fraction of the MACs),
        ``seconds`` (of processor time, to find the groups), ``groups``, ``refused_macs``,
        ``reasons``, ``unlisted`` and a ``remark``; what is not known is left out.
    """
    begin = time.process_time()
    try:
        groups = find(model, example)
    except ValueError as error:
        return failure("refused", "groups", error) | {"seconds": time.process_time() - begin}
    except Exception as error:
        return failure("crashed", "groups", error) | {"seconds": time.process_time() - begin}
    seconds = time.process_time() - begin
    costs = measure_layers(model, example)
    missing = unlisted(model, groups)
    reasons = refusals(groups.refused, costs.macs)
    row = {
        "seconds": seconds,
        "groups": len(groups),
        "refused_macs": round(sum(fraction for _, _, fraction in reasons), 4),
        "reasons": reasons[:REASONS],
        "unlisted": len(missing),
        "unlisted_layers": missing[:5],
    }
    try:
        return row | cut_half(model, example, groups)
    except Exception as error:
        return row | failure("crashed", "cut", error)


def cut_half(model: nn.Module, example: Any, groups: ChannelGroups) -> dict[str, Any]:
    """Mask and cut a copy; return the class, the MACs that are left and a remark.

    They are a fraction of those of the masked copy, which is as wide as the model: how many boxes
    a detector finds, and works on, depends on its values.
    """
    plan = half_of(groups)
    masked = copy_module(model)
    ChannelMask(masked, groups, plan).apply()
    macs = MacModel.of(model, groups, example, costs=measure_layers(masked, example))
    net = copy_module(model)
    worst = difference(net, example, groups, plan)
    counted, predicted = count_macs(net, example), macs.remaining(plan.widths())
    if not worst <= TOLERANCE:  # rounding may be all that differs: boxes that change places, say
        double = copy_module(model).double()
        worst = difference(double, cast(example, torch.float64), groups, plan)
    left = counted / max(1, macs.total)
    row: dict[str, Any] = {"kind": kind_of(left), "left": round(left, 4), "remark": ""}
    if not worst <= TOLERANCE:
        row |= {"kind": "wrong", "remark": f"masked and cut differ by {worst:.2g}"}
    elif counted != predicted:
        row |= {"kind": "wrong", "remark": f"{counted} MACs, predicted were {predicted}"}
    return row


def difference(net: nn.Module, example: Any, groups: ChannelGroups, plan: PruningPlan) -> float:
    """Mask and cut a network; return how far its outputs move with the cut."""
    ChannelMask(net, groups, plan).apply()
    masked = MaskedOutputs(net, example, groups, plan)
    cut_channels(net, groups, plan)
    return masked.difference(net).surgery


def prepared(made: tuple[nn.Module, Any]) -> tuple[nn.Module, Any]:
    """Return a model with scrambled weights and an input of noise."""
    model, example = made
    example = noise_like(example)
    return scrambled(model, example), example
