"""Sequential selection: widths planned once, channels chosen front to back."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.functional.selection.chance import against_chance
from lightning_prune.functional.selection.clustering import ChannelClustering
from lightning_prune.functional.widths.budget import scale_widths
from lightning_prune.functional.widths.width import allowed_widths, clip_width, is_selectable
from lightning_prune.graph.group import ChannelGroups, Group
from lightning_prune.graph.macs import MacModel
from lightning_prune.observe.activations import ObjectActivations
from lightning_prune.policies.criteria.criterion import Criterion, Evidence, check_observable
from lightning_prune.policies.selection.clusterer import (
    ChannelClusterer,
    group_separability,
    source_moments,
)
from lightning_prune.policies.selection.fast_widths import FastWidths

_NO_OBJECT = "no object was matched"
_NOISE = "separability no better than that of random labels: its clusters are noise"
_ONE_CLASS = "objects of one class only were matched, so there is nothing to tell apart"


@dataclass(frozen=True)
class GroupDecision:
    """What was decided for one group, and why.

    Attributes:
        group: Name of the group.
        keep: Kept channels, sorted.
        channels: Channels before.
        knee: Knee of the MSS curve, or None.
        bound: What set the width: ``knee``, ``lower``, ``upper``, ``rounding``, ``fallback`` or
            ``mac_target``; of weight-based selection ``ratio``, ``mac_target`` or
            ``keep_range`` (also: one block left).
        status: ``pruned``, ``fallback`` (pruned without activations) or ``left``.
        reason: Why it was left alone or fell back, or that its clusters are noise; empty otherwise.
        separability: Mean separability of its channels, in [0, 2]; None: not measured.
        separability_at_random: What labels dealt out at random give.
        noise: Whether its separability is no better than that.
    """

    group: str
    keep: Tensor
    channels: int
    knee: int | None
    bound: str
    status: str
    reason: str
    separability: float | None = None
    separability_at_random: float | None = None
    noise: bool = False

    def state_dict(self) -> dict[str, Any]:
        """Return the decision as plain data."""
        return dict(vars(self))


@dataclass(frozen=True)
class SequentialSelection:
    """Chooses the channels of groups one after the other.

    Attributes:
        groups: All groups of the model.
        names: Groups to prune, front to back.
        clusterer: How channels are clustered.
        criterion: Which channel of a cluster, or which channels at that width, stay.
        keep_range: Bounds of each width as fractions of the group's channels; None: the knee.
        round_to: Widths are multiples of it.
        fast_widths: How planned widths move to such as run fast; None: they stay.
        hidden: Groups of which no layer shows the channels -> why; they are left as they are.
    """

    groups: ChannelGroups
    names: tuple[str, ...]
    clusterer: ChannelClusterer
    criterion: Criterion
    keep_range: tuple[float, float] | None
    round_to: int
    fast_widths: FastWidths | None = None
    hidden: Mapping[str, str] = field(default_factory=dict)

    @property
    def observed(self) -> tuple[str, ...]:
        """Return the groups whose activations are read."""
        return tuple(name for name in self.names if name not in self.hidden)

    def check(self, model: nn.Module, macs: MacModel, mac_target: float | None) -> None:
        """Check before training what can be known before training.

        Raises:
            ValueError: the criterion cannot judge a group, the backend of the clusterer is not
                installed, or the MAC target is out of reach.
        """
        # Where nothing can be read, that is an error; else it is a reason in the report.
        for name in self.observed or self.names:
            check_observable(model, self.groups[name])
            self.criterion.check(model, self.groups[name])
        self.clusterer.check()
        if mac_target is None:
            return
        narrowest = macs.remaining({n: self._narrowest(self.groups[n]) for n in self.names})
        if narrowest > mac_target * macs.total:
            bounds = "1 channel a layer" if self.keep_range is None else f"{self.keep_range[0]:.0%}"
            raise ValueError(
                f"mac_target={mac_target} (fraction of the dense MACs that remains) cannot be "
                f"reached: the selected {len(self.names)} groups at their narrowest ({bounds} of "
                f"the channels, round_to={self.round_to}) leave {narrowest / macs.total:.3f}; "
                "raise mac_target, lower keep_range or select more layers"
            )

    def why_nothing(self) -> str | None:
        """Return why no group can be pruned, or None."""
        reasons = [self.why_left(self.groups[name]) for name in self.names]
        if not reasons:
            return "`layers` selects no layer"
        return None if None in reasons else f"of each selected layer, such as: {reasons[0]}"

    def why_left(self, group: Group) -> str | None:
        """Return why a group is left alone, or None."""
        if group.name in self.hidden:
            return f"its activations cannot be read: {self.hidden[group.name]}"
        if not is_selectable(group.channels):
            return f"{group.channels} channels are too few to choose among"
        if self.keep_range is not None and self._narrowest(group) == group.channels:
            return f"{group.channels} channels with round_to={self.round_to} leave no choice"
        return None

    def _narrowest(self, group: Group) -> int:
        if not is_selectable(group.channels) or group.name in self.hidden:
            return group.channels
        multiple = group.round_to(self.round_to)
        return clip_width(1, group.channels, self.keep_range, multiple).width

    def cluster(self, group: Group, seen: ObjectActivations) -> ChannelClustering | None:
        """Cluster a group's channels; see ``ChannelClusterer.cluster_seen``."""
        return self.clusterer.cluster_seen(group, seen)

    def plan_widths(
        self, knees: Mapping[str, int | None], macs: MacModel, mac_target: float
    ) -> dict[str, int]:
        """Scale the knees of all groups by one factor until the model meets the MAC target.

        What the factor leaves of the budget widens single groups; see ``scale_widths``. Then
        ``fast_widths`` moves them.

        Args:
            knees: Group -> knee of its dense MSS curve; None: the upper bound.
            macs: MACs as a function of widths.
            mac_target: Fraction of the dense MACs that may remain, met from below.
        """
        free = [name for name in self.names if self.why_left(self.groups[name]) is None]
        wide = [self.groups[name].channels for name in free]
        counts = [
            clip_width(knees[name], channels, None, 1).width
            if knees[name] is not None
            else clip_width(None, channels, self.keep_range, 1).width
            for name, channels in zip(free, wide, strict=True)
        ]

        cost, budget = macs.cost_of(free), mac_target * macs.total
        multiples = [self.groups[name].round_to(self.round_to) for name in free]
        widths = scale_widths(counts, wide, cost, budget, self.keep_range, multiples)
        if self.fast_widths is not None:
            allowed = [
                allowed_widths(channels, self.keep_range, multiple)
                for channels, multiple in zip(wide, multiples, strict=True)
            ]
            widths = self.fast_widths.choose(macs, free, widths, widths, allowed, multiples, budget)
        return dict(zip(free, widths, strict=True))

    def decide(
        self,
        model: nn.Module,
        name: str,
        seen: ObjectActivations,
        width: int | None = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> tuple[GroupDecision, ChannelClustering | None]:
        """Choose the channels of one group.

        Args:
            model: The live model, earlier groups masked.
            name: The group.
            seen: Activations of (at least) its producers.
            width: Planned width; None: the knee within the bounds.
            outputs: Source's name -> what was collected for a criterion that needs activations.

        Returns:
            The decision, and the clustering that it rests on.

        Raises:
            NonFiniteImportanceError: activations or importances are NaN or infinite.
        """
        group = self.groups[name]
        left = self.why_left(group)
        if left is not None:
            everything = torch.arange(group.channels)
            return (
                GroupDecision(name, everything, group.channels, None, "none", "left", left),
                None,
            )
        clustering = self.cluster(group, seen)
        knee = None if clustering is None else clustering.knee
        multiple = group.round_to(self.round_to)
        own = clip_width(knee, group.channels, self.keep_range, multiple)
        planned = width is not None
        bound: str = own.bound if width in (None, own.width) else "mac_target"
        width = own.width if width is None else width
        moments = source_moments(group, seen)
        evidence = Evidence(model, group, moments, clustering, outputs or {})
        keep = self.criterion.choose(evidence, width)
        status, reason = "pruned", ""
        if clustering is None and "clusters" in self.criterion.needs:
            where = "planned width" if planned else "upper bound"
            why = _ONE_CLASS if moments else _NO_OBJECT
            status, reason = (
                "fallback",
                f"{why}: channels chosen by weight magnitude at the {where}",
            )
        decision = GroupDecision(name, keep, group.channels, knee, bound, status, reason)
        if clustering is not None and "clusters" in self.criterion.needs:
            decision = self._beside_chance(decision, group, seen)
        return decision, clustering

    def _beside_chance(
        self, decision: GroupDecision, group: Group, seen: ObjectActivations
    ) -> GroupDecision:
        sampled, parts = {}, {}
        for member in group.sources:
            sampled[member.layer] = seen.sampled_of(member.layer)
            parts[member.layer] = seen.shuffled_of(member.layer)
        shuffled = [
            group_separability(group, dict(zip(parts, moments, strict=True)))
            for moments in zip(*parts.values(), strict=True)
        ]
        chance = against_chance(group_separability(group, sampled), shuffled)
        if chance is None:
            return decision
        return dataclasses.replace(
            decision,
            separability=chance.separability,
            separability_at_random=chance.at_random,
            noise=chance.is_noise,
            reason=_NOISE if chance.is_noise else decision.reason,
        )
