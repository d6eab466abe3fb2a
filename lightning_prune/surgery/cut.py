"""Cuts planned channels out of a live model."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.layer_kinds import sync_sizes
from lightning_prune.graph.names import holders, layer_of, modules_by_name
from lightning_prune.graph.removed_rows import kept_positions, tensor_name
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.adapted_layers import adapt_layers
from lightning_prune.surgery.exact_norms import count_cut_as_zeros
from lightning_prune.surgery.mask import ChannelSlice, channel_slices
from lightning_prune.surgery.memory_format import laid_out_like
from lightning_prune.surgery.norm_kind import norm_kind
from lightning_prune.surgery.sizes import set_sizes, sizes_after


@dataclass(frozen=True)
class Replacement:
    """A parameter that was cut: what replaces it and which positions were kept.

    Attributes:
        old: The parameter before the cut.
        new: The parameter that took its place.
        kept: Dimension -> kept positions, int64.
    """

    old: nn.Parameter
    new: nn.Parameter
    kept: Mapping[int, Tensor]

    def select(self, values: Tensor) -> Tensor:
        """Cut another tensor of the old parameter's shape in the same way."""
        narrow = values
        for dim, index in self.kept.items():
            narrow = narrow.index_select(dim, index.to(values.device))
        return laid_out_like(narrow, values)


@dataclass(frozen=True)
class PrunedChannels:
    """What a cut removed: the event that every callback is notified of.

    Attributes:
        plan: The plan that was carried out.
        groups: The channel groups as they were before the cut.
        parameters: Name of each parameter that was cut -> its replacement.
        output_difference: Largest difference between the masked and the cut model's output, as a
            fraction of the largest output; None where it was not measured.
        mixed_by: Norms that compute other statistics from fewer channels: where there are some,
            they make the larger part of that difference.
        masked: Copy of the model just before the cut, masked and as wide as it was, for
            comparisons during the event; None where the caller made none.
    """

    plan: PruningPlan
    groups: ChannelGroups
    parameters: Mapping[str, Replacement]
    output_difference: float | None = None
    mixed_by: tuple[str, ...] = ()
    masked: nn.Module | None = None


@torch.no_grad()
def cut_channels(model: nn.Module, groups: ChannelGroups, plan: PruningPlan) -> PrunedChannels:
    """Remove the channels that a plan does not keep, for good.

    Parameters become new, narrower ones with the same ``requires_grad`` and memory format;
    gradients are dropped; buffers and the layers' size attributes follow. Optimizers still hold the
    old parameters: pass the result to ``rebind_optimizer``. A submodule that keeps more than
    tensors of its layers by channel defines ``follow_cut(replaced)``: it is called with the
    replacements of its own parameters, by their names in it.

    Args:
        model: The live model; masked or not, kept values are untouched, but for rows of queries
            (``Group.scaled``).
        groups: Its channel groups; they describe the model no longer after the cut.
        plan: Which channels stay.

    Returns:
        What was replaced; empty where the plan removes nothing.

    Raises:
        KeyError: the plan names a group that the model does not have.
        ValueError: the plan was made for another width, or a number that a module holds
            (``Group.sizes``) would not stay whole. Nothing is changed then.

    >>> from lightning_prune.graph.trace import trace_groups
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    >>> groups = trace_groups(net, torch.zeros(1, 3, 4, 4))
    >>> _ = cut_channels(net, groups, PruningPlan({"0": torch.tensor([1, 5])}, {"0": 8}))
    >>> tuple(net[0].weight.shape), tuple(net[2].weight.shape), net[0].out_channels
    ((2, 3, 1, 1), (2, 2, 1, 1), 2)
    """
    # Of a tensor that several layers share there is one: its parts are cut together, once.
    by_tensor: dict[int, list[ChannelSlice]] = defaultdict(list)
    for part in channel_slices(model, groups, plan):
        if len(part.index):
            by_tensor[id(part.values)].append(part)
    sizes = sizes_after(model, groups, plan)  # before anything is changed: it may be refused
    factors = _factors(model, groups, plan)
    shared = holders(model)
    replaced: dict[str, Replacement] = {}
    touched: dict[str, None] = {}
    for tensor, parts in by_tensor.items():
        values = parts[0].values
        kept = _kept(parts)
        narrow = values
        for dim, index in kept.items():
            narrow = narrow.index_select(dim, index.to(values.device))
        for dim, factor in factors.get(tensor, ()):
            shape = [-1 if d == dim else 1 for d in range(values.ndim)]
            own = factor[kept[dim]] if dim in kept else factor
            narrow = narrow * own.to(narrow).view(shape)
        narrow = laid_out_like(narrow, values)
        if isinstance(values, nn.Parameter):
            new = nn.Parameter(narrow, requires_grad=values.requires_grad)
            replacement = Replacement(values, new, kept)
            replaced |= {tensor_name(layer, name): replacement for layer, _, name in shared[tensor]}
            narrow = new
        for layer, owner, name in shared[tensor]:
            setattr(owner, name, narrow)
            touched[layer] = touched[layer_of(layer)] = None
    set_sizes(sizes)
    modules = modules_by_name(model)
    for layer in touched:
        sync_sizes(modules[layer])
    adapt_layers(model, [modules[layer] for layer in touched])
    _adapt_norms(model, groups, plan)
    _tell_submodules(model, replaced)
    return PrunedChannels(plan, groups, replaced)


def _kept(parts: Sequence[ChannelSlice]) -> dict[int, Tensor]:
    """Return what stays of each dimension of a tensor that has some parts removed."""
    removed: dict[int, list[Tensor]] = defaultdict(list)
    for part in parts:
        removed[part.dim].append(part.index)
    shape = parts[0].values.shape
    return {dim: kept_positions(shape[dim], torch.cat(index)) for dim, index in removed.items()}


def _factors(
    model: nn.Module, groups: ChannelGroups, plan: PruningPlan
) -> dict[int, list[tuple[int, Tensor]]]:
    """Return what rows are multiplied by, by the ``id`` of their tensor: dimension, factors."""
    found: dict[int, list[tuple[int, Tensor]]] = defaultdict(list)
    modules = modules_by_name(model)
    for name, keep in plan.keep.items():
        for rows in groups[name].scaled:
            for tensor, dim in rows.dims:
                values = getattr(modules[rows.layer], tensor)
                factor = torch.ones(values.shape[dim], dtype=torch.float64)
                factor[rows.index] = math.sqrt(len(keep) / groups[name].channels)
                found[id(values)].append((dim, factor))
    return found


def _adapt_norms(model: nn.Module, groups: ChannelGroups, plan: PruningPlan) -> None:
    """Make norms over cut channels count them as the zeros that they were.

    Raises:
        ValueError: a norm is of no kind for which that is possible.
    """
    removed: dict[tuple[str, int], list[Tensor]] = defaultdict(list)
    for name in plan.keep:
        mask = plan.mask(name)
        for norm in groups[name].norms:
            removed[norm.layer, norm.size].append(norm.index[~mask[norm.channel]])
    modules = modules_by_name(model)
    for (layer, size), index in removed.items():
        kept = kept_positions(size, torch.cat(index))
        if len(kept) < size and not count_cut_as_zeros(modules[layer], size, kept, groups.norms):
            kind = f"{layer} ({type(modules[layer]).__name__}) takes statistics over channels that"
            if groups.norms == "plain" and norm_kind(modules[layer], size, len(kept)) is not None:
                raise ValueError(
                    f"{kind} are cut in groups, which keep different widths: a plain norm has none "
                    "(norms='exact' can)"
                )
            raise ValueError(f"{kind} are cut, and is no norm of a known kind")


def _tell_submodules(model: nn.Module, replaced: Mapping[str, Replacement]) -> None:
    for name, module in modules_by_name(model).items():
        follow = getattr(module, "follow_cut", None)
        if not callable(follow):
            continue
        prefix = f"{name}." if name else ""
        own = {n.removeprefix(prefix): r for n, r in replaced.items() if n.startswith(prefix)}
        if own:
            follow(own)
