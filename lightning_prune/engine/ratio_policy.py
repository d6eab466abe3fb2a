"""Masks the least important channels of all groups, at a ratio and down to a MAC target."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from lightning_prune.engine.evidence import Collected
from lightning_prune.engine.mask_state import MaskState
from lightning_prune.engine.masking import Changes, Choice
from lightning_prune.engine.measured_target import nearest_measured
from lightning_prune.engine.next_action import Mask
from lightning_prune.engine.phase import Phase
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.criterion import Criterion, Evidence
from lightning_prune.policies.selection.decision_record import DecisionRecord, group_norms
from lightning_prune.policies.selection.evidence import group_evidence
from lightning_prune.policies.selection.ratio_selection import RatioSelection, RatioStep
from lightning_prune.policies.selection.sequential import GroupDecision


@dataclass(frozen=True)
class RatioPolicy:
    """One decision a step, on all groups together.

    Attributes:
        model: The live model.
        selection: How channels are selected at a ratio.
        target: Fraction of the dense MACs, or time, that remains; None: the ratio decides.
        records: Group -> the numbers that its choice rests on, in the process that decides.
        measure: Measures which fraction of the dense time widths take; None: a model of it is
            believed.
    """

    model: nn.Module
    selection: RatioSelection
    target: float | None
    records: dict[str, DecisionRecord] = field(default_factory=dict)
    measure: Callable[[Mapping[str, int]], float] | None = None

    @property
    def groups(self) -> ChannelGroups:
        """All groups of the model."""
        return self.selection.groups

    @property
    def criterion(self) -> Criterion:
        """How important a channel is."""
        return self.selection.criterion

    @property
    def macs(self) -> MacModel:
        """MACs as a function of widths."""
        return self.selection.macs

    def choices(self, state: MaskState, action: Mask) -> Sequence[Choice]:
        """Return the one decision of a step."""
        selection = self._unfreed(state)

        def decide(state: MaskState, collected: Collected) -> Changes:
            known = self._evidence(selection.names, collected)
            step, measured = self._selected(selection, action.ratio, state.plan, known)
            self._record(selection.names, state.plan, step, collected)
            return {
                "phase": Phase.MASKING,
                "plan": step.plan,
                "ratio": step.ratio,
                "removed": step.removed,
                "macs_fraction": step.macs_fraction,
                "latency_fraction": measured,
                "met": measured is not None or self._is_met(step.cost_fraction),
            }

        return [Choice(selection.names, selection.needs, decide, widths=selection.allowed)]

    def freed(self, state: MaskState, names: Sequence[str]) -> Changes:
        """Return plan and MACs without the masks of some groups."""
        keep = {name: k for name, k in state.plan.keep.items() if name not in names}
        plan = PruningPlan(keep, {name: state.plan.channels[name] for name in keep})
        macs, cost = self.selection.macs, self.selection.cost
        fraction = macs.remaining(plan.widths()) / macs.total
        met = self._is_met(cost.remaining(plan.widths()) / cost.total)
        return {"plan": plan, "macs_fraction": fraction, "latency_fraction": None, "met": met}

    def why_nothing(self, state: MaskState) -> str | None:
        """Return why no channel of any group that is not freed can be masked, or None."""
        return self._unfreed(state).why_nothing()

    def _selected(
        self,
        selection: RatioSelection,
        ratio: float,
        held: PruningPlan,
        known: Mapping[str, Evidence] | None,
    ) -> tuple[RatioStep, float | None]:
        """Return a step, and the fraction of the dense time that was measured of it.

        Where a target is met, its widths are measured; see ``nearest_measured``.
        """
        step = selection.select(self.model, ratio, self.target, held, known)
        measure = self.measure
        if self.target is None or measure is None or not self._is_met(step.cost_fraction):
            return step, None

        def find(aim: float) -> RatioStep | None:
            found = selection.select(self.model, ratio, aim, held, known)
            return found if found.cost_fraction <= aim else None

        return nearest_measured(find, lambda found: measure(found.plan.widths()), self.target)

    def _record(
        self, names: Sequence[str], held: PruningPlan, step: RatioStep, collected: Collected
    ) -> None:
        for name in names:
            new = DecisionRecord(
                criterion=type(self.criterion).__name__,
                norms=group_norms(self.model, self.groups[name]),
                importance=step.importance[name].detach().double().cpu(),
                elimination=collected.eliminations.get(name),
            )
            there = held.mask(name) if name in held.keep else None
            self.records[name] = new.behind(self.records.get(name), there)

    def _evidence(self, names: Sequence[str], collected: Collected) -> dict[str, Evidence] | None:
        """Return what was collected of each group; None where weights and gradients decide."""
        needs = self.selection.needs
        if not needs & {"activations", "clusters", "losses"}:
            return None
        seen = collected.objects if "clusters" in needs else None
        return group_evidence(
            self.model, self.groups, names,
            seen=seen, outputs=collected.outputs, eliminations=collected.eliminations,
        )  # fmt: skip

    def _unfreed(self, state: MaskState) -> RatioSelection:
        names = tuple(name for name in self.selection.names if name not in state.freed)
        return replace(self.selection, names=names)

    def _is_met(self, fraction: float) -> bool:
        return self.target is not None and fraction <= self.target


def ratio_decisions(
    state: MaskState, keep_range: tuple[float, float], round_to: int
) -> list[GroupDecision]:
    """Return what has been decided for each group so far, and what set its width.

    Args:
        state: How far masks have come.
        keep_range: Smallest fraction of a group's channels that stays, and 1.
        round_to: Widths are multiples of it.
    """
    found = []
    for name, keep in state.plan.keep.items():
        channels, bound = state.plan.channels[name], "mac_target" if state.met else "ratio"
        if state.met and state.latency_fraction is not None:
            bound = "latency_target"
        if len(keep) == channels:
            why = "none of its blocks of channels was due at this ratio"
            found.append(GroupDecision(name, keep, channels, None, "none", "left", why))
            continue
        if len(keep) - round_to < max(round_to, keep_range[0] * channels):
            bound = "keep_range"
        found.append(GroupDecision(name, keep, channels, None, bound, "pruned", ""))
    return found
