"""Masks groups one after the other, each judged with all earlier ones masked."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from lightning_prune.engine.evidence import Collected
from lightning_prune.engine.mask_state import MaskState, plan_of
from lightning_prune.engine.masking import Changes, Choice
from lightning_prune.engine.measured_target import nearest_measured
from lightning_prune.engine.next_action import Mask
from lightning_prune.engine.phase import Phase
from lightning_prune.functional.selection.clustering import ChannelClustering
from lightning_prune.graph.cost_model import CostModel
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel
from lightning_prune.policies.criteria.criterion import Criterion, Evidence, Need
from lightning_prune.policies.criteria.separability import Separability
from lightning_prune.policies.selection.clusterer import source_moments
from lightning_prune.policies.selection.decision_record import (
    DecisionRecord,
    group_norms,
    source_statistics,
)
from lightning_prune.policies.selection.sequential import GroupDecision, SequentialSelection

CLUSTERS: frozenset[Need] = frozenset({"clusters"})


@dataclass(frozen=True)
class SequentialPolicy:
    """One decision for each group that is due; with a MAC target, one on all widths before.

    Attributes:
        model: The live model.
        selection: How widths are planned and channels selected.
        macs: MACs as a function of widths.
        target: Fraction of the dense cost that remains; None: every group keeps its own knee.
        progress: Shows how far planning has come.
        clusterings: Group -> the clusters that its choice rests on, in the process that decides.
        records: Group -> all numbers that it rests on, in that process.
        cost: What the target counts; None: MACs.
        measure: Measures which fraction of the dense time widths take; None: a model of it is
            believed.
    """

    model: nn.Module
    selection: SequentialSelection
    macs: MacModel
    target: float | None
    progress: Callable[[Sequence[str], str], Iterable[str]]
    clusterings: dict[str, ChannelClustering] = field(default_factory=dict)
    records: dict[str, DecisionRecord] = field(default_factory=dict)
    cost: CostModel | None = None
    measure: Callable[[Mapping[str, int]], float] | None = None

    @property
    def groups(self) -> ChannelGroups:
        """All groups of the model."""
        return self.selection.groups

    @property
    def criterion(self) -> Criterion:
        """Which channels stay at a group's width."""
        return self.selection.criterion

    def choices(self, state: MaskState, action: Mask) -> Sequence[Choice]:
        """Return the decisions of a step, front to back; widths of all groups are planned first."""
        found = []
        if self.target is not None and state.widths is None:
            plan = partial(self.plan_widths, self.target)
            beside_chance = self.selection.needs_chance
            found.append(Choice(self.selection.observed, CLUSTERS, plan, beside_chance))
        needs = CLUSTERS | self.criterion.needs
        beside_chance = "clusters" in self.criterion.needs or self.selection.needs_chance
        for name in action.groups:
            decide = partial(self._decide, name)
            if name in self.selection.hidden:
                found.append(Choice((), frozenset(), decide))
            else:
                widths = {name: self.selection.widths_of(self.groups[name])}
                found.append(Choice((name,), needs, decide, beside_chance, widths))
        return found

    def plan_widths(self, target: float, state: MaskState, collected: Collected) -> Changes:
        """Plan the widths of all groups from their knees, or counts, in the dense model."""
        selection = self.selection
        counts: dict[str, int | None] = {}
        noise = []
        for name in self.progress(selection.names, "Planning widths"):
            group = selection.groups[name]
            left = selection.why_left(group)
            clustering = None if left else selection.cluster(group, collected.objects)
            counts[name] = selection.count_of(clustering)
            if clustering is not None and selection.is_noise(group, collected.objects):
                noise.append(name)
        cost = self.macs if self.cost is None else self.cost

        def planned(aim: float) -> dict[str, int] | None:
            try:
                return selection.plan_widths(counts, cost, aim, noise)
            except ValueError:  # out of reach; the target itself was checked before training
                if aim == target:
                    raise
                return None

        if self.measure is None:
            return {"widths": planned(target)}
        widths, real = nearest_measured(planned, self.measure, target)
        return {"widths": widths, "latency_fraction": real}

    def decide(self, name: str, state: MaskState, collected: Collected) -> GroupDecision:
        """Choose the channels of one group."""
        width = None if state.widths is None else state.widths.get(name)
        found, clustering = self.selection.decide(
            self.model,
            name,
            collected.objects,
            width,
            collected.outputs,
            collected.eliminations.get(name),
        )
        if clustering is not None:
            self.clusterings[name] = clustering
        self.records[name] = self._record(name, collected, clustering)
        if self.cost is not None and found.bound == "mac_target":
            return dataclasses.replace(found, bound="latency_target")
        return found

    def _record(
        self, name: str, collected: Collected, clustering: ChannelClustering | None
    ) -> DecisionRecord:
        group, criterion = self.groups[name], self.criterion
        moments = source_moments(group, collected.objects)
        evidence = Evidence(self.model, group, moments, clustering)
        # Others may draw random numbers, or need gradients that are gone.
        strengths = criterion.strengths(evidence) if isinstance(criterion, Separability) else None
        return DecisionRecord(
            criterion=type(criterion).__name__,
            norms=group_norms(self.model, group),
            importance=strengths,
            clustering=clustering,
            sources=source_statistics(group, moments),
            clusterer=self.selection.clusterer,
            elimination=collected.eliminations.get(name),
        )

    def freed(self, state: MaskState, names: Sequence[str]) -> Changes:
        """Return decisions and plan without the masks of some groups."""
        decisions = tuple(
            dataclasses.replace(
                decision, keep=torch.arange(decision.channels), status="left", reason="mask lifted"
            )
            if decision.group in names
            else decision
            for decision in state.decisions
        )
        return {"decisions": decisions, "plan": plan_of(decisions)}

    def _decide(self, name: str, state: MaskState, collected: Collected) -> Changes:
        found = self.decide(name, state, collected)
        decisions = (*state.decisions, found)
        changes: Changes = {"phase": Phase.MASKING, "decisions": decisions}
        return changes if found.status == "left" else changes | {"plan": plan_of(decisions)}
