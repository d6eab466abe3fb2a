"""Whether the MACs of a cut model are those predicted, tried on a copy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from math import prod
from typing import Any

import torch
from torch import nn

from lightning_prune.graph.group import ChannelGroups, Group, Member
from lightning_prune.graph.layer_kinds import is_producer
from lightning_prune.graph.macs import MacModel, layer_macs, measure_layers
from lightning_prune.graph.names import modules_by_name
from lightning_prune.graph.removed_rows import axes
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.cut import cut_channels

_TENSOR = 2  # layer and tensor, without a dimension
_MOST_FACTORS = 3


def plan_of(plan: PruningPlan, names: Sequence[str]) -> PruningPlan:
    """Return what a plan says of some groups."""
    keep = {name: plan.keep[name] for name in names}
    return PruningPlan(keep, {name: plan.channels[name] for name in names})


@dataclass(frozen=True)
class TrialMacs:
    """Counts the MACs of cut copies and compares them with a ``MacModel``.

    Attributes:
        dense: The model before any cut; only copies of it are cut.
        groups: Its channel groups.
        plan: What stays of each group in a trial.
        example: Its input.
        forward: How to call the model with it.
        cut: Copies that a trial has cut already, by the groups that it cut; they are not changed.
    """

    dense: nn.Module
    groups: ChannelGroups
    plan: PruningPlan
    example: Any
    forward: Callable[[nn.Module, Any], Any]
    cut: Mapping[frozenset[str], nn.Module] = field(default_factory=dict)

    def match(self, names: Sequence[str]) -> tuple["Products", dict[str, str]]:
        """Measure what products of activations cost, and find the groups that stay unpredictable.

        Args:
            names: Groups that can be cut together.

        Returns:
            What of the MACs of products of activations goes with the groups' channels; and the
            reasons against the groups whose MACs come out otherwise.
        """
        products: Products = {}
        miscounted: dict[str, str] = {}
        left = list(names)
        costs = measure_layers(self.dense, self.example, self.forward)
        while left:
            groups = {n: with_products(self.groups[n], products) for n in left}
            macs = MacModel.of(self.dense, ChannelGroups(groups), self.example, costs=costs)
            counted = self._of_cut(left)
            predicted = macs.by_layer(plan_of(self.plan, left).widths())
            layer = next((n for n in predicted if round(predicted[n]) != counted.get(n, 0)), None)
            if layer is None:
                break
            if layer == "" and not products:
                products = self._products(left, macs.layers[""])
                continue
            for name in _guilty(macs, layer, left):
                where = f"layer {layer!r}" if layer else "the products of activations"
                miscounted[name] = f"the MACs of {where} do not follow its width as predicted"
            left = [name for name in left if name not in miscounted]
        return products, miscounted

    def _of_cut(self, names: Sequence[str]) -> dict[str, int]:
        net = self.cut.get(frozenset(names))
        if net is None:
            net = copy_module(self.dense)
            cut_channels(net, self.groups, plan_of(self.plan, names))
        return layer_macs(net, self.example, self.forward)

    def _products(self, names: Sequence[str], dense: int) -> "Products":
        r"""Measure what fraction of the products of activations has some groups as factors.

        .. math:: A_S \prod_{g \in S} (r_g - 1) = \sum_{U \subseteq S} (-1)^{|S| - |U|} R_U

        with the remaining fraction R when only the groups U are cut, and their kept fractions r.
        """
        left: dict[tuple[str, ...], int] = {(): dense}
        found: Products = {}
        singly = [(name,) for name in names]
        for own in (*singly, *self._factors(names)):
            left[own] = self._of_cut(own).get("", 0)
            parts = chain.from_iterable(combinations(own, n) for n in range(len(own) + 1))
            changed = sum((-1) ** (len(own) - len(part)) * left[part] for part in parts)
            if changed and len(own) == 1:
                removed = len(self.plan.removed(own[0])) / self.groups[own[0]].channels
                found[own] = -changed / dense / removed
            elif changed:
                removed = prod(
                    -len(self.plan.removed(name)) / self.groups[name].channels for name in own
                )
                found[own] = changed / dense / removed
        return found

    def _factors(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Yield the sets of two and three groups that may be factors of the same products.

        Those that share positions of an axis (heads, and the width of each), or a tensor of a layer
        whose products are not counted as its own.
        """
        counted = {n for n, m in modules_by_name(self.dense).items() if is_producer(m)}
        near: dict[tuple[str, ...], None] = {}
        by_tensor: dict[tuple[str, ...], list[tuple[str, Member]]] = {}
        for axis, held in axes({name: self.groups[name] for name in names}).items():
            key = axis if axis.layer in counted else axis[:2]
            by_tensor.setdefault(tuple(map(str, key)), []).extend(held)
        for key, held in by_tensor.items():
            own = dict.fromkeys(name for name, _ in held)
            sizes = sum(len(member.index.unique()) for _, member in held)
            apart = len(torch.cat([member.index for _, member in held]).unique()) == sizes
            if len(own) > 1 and not (apart and len(key) > _TENSOR):
                near[tuple(name for name in names if name in own)] = None
        for size in (2, _MOST_FACTORS):
            sets = (some for own in near for some in combinations(own, size))
            yield from dict.fromkeys(some for some in sets if len(some) == size)


Products = dict[tuple[str, ...], float]
"""Names of groups -> fraction of the MACs of products of activations that has all as factors."""


def with_products(group: Group, products: Products) -> Group:
    """Return a group with what was measured of the products of activations.

    >>> found = with_products(Group("heads", 4, ()), {("heads",): 1.0, ("heads", "width"): 0.5})
    >>> found.products, found.shared_products
    (1.0, ((('heads', 'width'), 0.5),))
    """
    shared = {s: part for s, part in products.items() if len(s) > 1 and s[0] == group.name}
    single = products.get((group.name,), 0.0)
    return replace(group, products=single, shared_products=tuple(shared.items()))


def _guilty(macs: MacModel, layer: str, names: Sequence[str]) -> list[str]:
    """Return the groups whose widths a layer's MACs depend on."""
    sources = macs.groups_of(layer)
    return [name for name in names if name in sources] or list(names[-1:])
