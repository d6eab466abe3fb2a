"""Whether the MACs of a cut model are those predicted, tried on a copy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel, layer_macs, measure_layers
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.trial_plan import plan_of


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

    def miscounted(self, names: Sequence[str]) -> dict[str, str]:
        """Return the groups with which MACs come out otherwise than predicted, with the reason.

        Args:
            names: Groups that can be cut together.
        """
        found: dict[str, str] = {}
        left = list(names)
        while left:
            counted = self._of_cut(left)
            # Few networks cost otherwise when masked: those are masked only where it matters.
            if self._first_wrong(self._of(self.dense, left), counted, left) is None:
                break
            macs = self._of_masked(left)
            layer = self._first_wrong(macs, counted, left)
            if layer is None:
                break
            for name in self._guilty(macs, layer, left):
                where = f"layer {layer!r}" if layer else "operations that belong to no layer"
                found[name] = f"the MACs of {where} do not follow its width as predicted"
            left = [name for name in left if name not in found]
        return found

    def _first_wrong(
        self, macs: MacModel, counted: Mapping[str, int], names: Sequence[str]
    ) -> str | None:
        """Return the first layer whose MACs are not those predicted, None where all are."""
        predicted = macs.by_layer(plan_of(self.plan, names).widths())
        return next((n for n in predicted if round(predicted[n]) != counted.get(n, 0)), None)

    def _of_masked(self, names: Sequence[str]) -> MacModel:
        """Return the MACs of the masked network: how many boxes it finds depends on its values."""
        net = copy_module(self.dense)
        ChannelMask(net, self.groups, plan_of(self.plan, names)).apply()
        return self._of(net, names)

    def _of(self, net: nn.Module, names: Sequence[str]) -> MacModel:
        """Return the MACs of a network, masked or not, as a function of the widths of groups."""
        groups = {name: self.groups[name] for name in names}
        costs = measure_layers(net, self.example, self.forward)
        return MacModel.of(self.dense, ChannelGroups(groups), self.example, costs=costs)

    def _of_cut(self, names: Sequence[str]) -> dict[str, int]:
        net = self.cut.get(frozenset(names))
        if net is None:
            net = copy_module(self.dense)
            cut_channels(net, self.groups, plan_of(self.plan, names))
        return layer_macs(net, self.example, self.forward)

    def _guilty(self, macs: MacModel, layer: str, names: Sequence[str]) -> list[str]:
        """Return the groups whose widths a layer's MACs depend on; by trying where none is known.

        Of a layer that runs once a head the number of heads is no width.
        """
        sources = macs.groups_of(layer)
        own = [name for name in names if name in sources]
        if own:
            return own
        around = f"{layer.rpartition('.')[0]}."
        near = {n for n in names if any(m.layer.startswith(around) for m in self.groups[n].members)}
        for name in sorted(names, key=lambda name: name not in near):
            predicted = self._of_masked([name]).by_layer(plan_of(self.plan, [name]).widths())
            if round(predicted[layer]) != self._of_cut([name]).get(layer, 0):
                return [name]
        return list(names[-1:])
