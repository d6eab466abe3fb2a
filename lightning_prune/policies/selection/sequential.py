"""Sequential selection: widths planned once, channels chosen front to back."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_prune.functional.reconstruction.elimination import Elimination
from lightning_prune.functional.selection.clustering import ChannelClustering
from lightning_prune.functional.widths.budget import scale_widths
from lightning_prune.functional.widths.width import (
    allowed_widths,
    clip_width,
    is_selectable,
    narrower_widths,
)
from lightning_prune.graph.cost_model import CostModel, target_words
from lightning_prune.graph.group import ChannelGroups, Group
from lightning_prune.graph.macs import MacModel
from lightning_prune.observe.activations import ObjectActivations
from lightning_prune.policies.criteria.criterion import Criterion, Evidence, check_observable
from lightning_prune.policies.selection.clusterer import ChannelClusterer, source_moments
from lightning_prune.policies.selection.fast_widths import FastWidths
from lightning_prune.policies.selection.group_chance import group_chance

CountRule = Literal["knee", "distinct"]
"""What sets a group's width: the knee of the MSS curve, or the count of different profiles."""

_NO_OBJECT = "no object was matched"
_NOISE = "separability no better than that of random labels"
_ONE_CLASS = "objects of one class only were matched, so there is nothing to tell apart"


@dataclass(frozen=True)
class GroupDecision:
    """What was decided for one group, and why.

    Attributes:
        group: Name of the group.
        keep: Kept channels, sorted.
        channels: Channels before.
        knee: Knee of the MSS curve, or None.
        bound: What set the width: ``knee``, ``count``, ``lower``, ``upper``, ``rounding``,
            ``fallback``, ``mac_target`` or ``latency_target``; of weight-based selection
            ``ratio``, one of the two targets, or ``keep_range`` (also: one block left).
        status: ``pruned``, ``fallback`` (pruned without activations, or not by them) or ``left``.
        reason: Why it was left alone or fell back, or that its clusters are noise; empty otherwise.
        separability: Mean separability of its channels, in [0, 2]; None: not measured.
        separability_at_random: What labels dealt out at random give.
        noise: Whether its separability is no better than that.
        count: How many different profiles its channels have, beside the noise of estimates; None:
            not counted.
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
    count: int | None = None

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
        count: What sets a width: the ``knee``, or the number of ``distinct`` profiles.
        noise_criterion: Which channels stay where separability is noise; a criterion of weights.
            None: those of the clusters all the same.
    """

    groups: ChannelGroups
    names: tuple[str, ...]
    clusterer: ChannelClusterer
    criterion: Criterion
    keep_range: tuple[float, float] | None
    round_to: int
    fast_widths: FastWidths | None = None
    hidden: Mapping[str, str] = field(default_factory=dict)
    count: CountRule = "knee"
    noise_criterion: Criterion | None = None

    @property
    def observed(self) -> tuple[str, ...]:
        """Return the groups whose activations are read."""
        return tuple(name for name in self.names if name not in self.hidden)

    def check(self, model: nn.Module, cost: CostModel, target: float | None) -> None:
        """Check before training what can be known before training.

        Raises:
            ValueError: the criterion cannot judge a group, the backend of the clusterer is not
                installed, or the target is out of reach.
        """
        # Where nothing can be read, that is an error; else it is a reason in the report.
        for name in self.observed or self.names:
            check_observable(model, self.groups[name])
            for criterion in (self.criterion, self.noise_criterion):
                if criterion is not None:
                    criterion.check(model, self.groups[name])
        self.clusterer.check()
        if target is None:
            return
        narrowest = cost.remaining({n: self._narrowest(self.groups[n]) for n in self.names})
        if narrowest > target * cost.total:
            key, what = target_words(cost)
            bounds = "1 channel a layer" if self.keep_range is None else f"{self.keep_range[0]:.0%}"
            raise ValueError(
                f"{key}={target:.4g} (fraction of the dense {what} that remains) cannot be "
                f"reached: the selected {len(self.names)} groups at their narrowest ({bounds} of "
                f"the channels, round_to={self.round_to}) leave {narrowest / cost.total:.3f}; "
                f"raise {key}, lower keep_range or select more layers"
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

    def widths_of(self, group: Group) -> tuple[int, ...]:
        """Return the widths that a group may have, from its own down."""
        multiple, least = group.round_to(self.round_to), self._narrowest(group)
        return narrower_widths(group.channels, least, multiple)

    @property
    def needs_chance(self) -> bool:
        """Return whether widths rest on what random labels, and halves of the objects, give."""
        return self.count == "distinct" or self.noise_criterion is not None

    def count_of(self, clustering: ChannelClustering | None) -> int | None:
        """Return the number of channels that a group keeps by itself; None: it does not say."""
        if clustering is None:
            return None
        return clustering.knee if self.count == "knee" else clustering.count

    def is_noise(self, group: Group, seen: ObjectActivations) -> bool:
        """Return whether a group's clusters are noise, and another criterion chooses there."""
        if self.noise_criterion is None:
            return False
        chance = group_chance(group, seen)
        return chance is not None and chance.is_noise

    def plan_widths(
        self,
        counts: Mapping[str, int | None],
        cost: CostModel,
        target: float,
        noise: Collection[str] = (),
    ) -> dict[str, int]:
        """Scale the counts of all groups by one factor until the model meets the target.

        A group whose separability is noise says nothing of its width: it takes the mean fraction
        of its channels that the others ask for, so that it shrinks as they do on average.

        What the factor leaves of the budget widens single groups; see ``scale_widths``. Then
        ``fast_widths`` moves them, where the target counts MACs.

        Args:
            counts: Group -> knee of its dense MSS curve, or its count; None: the upper bound.
            cost: MACs, or milliseconds, as a function of widths.
            target: Fraction of the dense cost that may remain, met from below.
            noise: Groups whose separability is noise.
        """
        free = [name for name in self.names if self.why_left(self.groups[name]) is None]
        wide = [self.groups[name].channels for name in free]
        wishes = [
            clip_width(counts[name], channels, None, 1).width
            if counts[name] is not None
            else clip_width(None, channels, self.keep_range, 1).width
            for name, channels in zip(free, wide, strict=True)
        ]
        wishes = _with_mean_fraction(wishes, wide, [name in noise for name in free])

        budget = target * cost.total
        multiples = [self.groups[name].round_to(self.round_to) for name in free]
        widths = scale_widths(wishes, wide, cost.cost_of(free), budget, self.keep_range, multiples)
        if self.fast_widths is not None and isinstance(cost, MacModel):
            allowed = [
                allowed_widths(channels, self.keep_range, multiple)
                for channels, multiple in zip(wide, multiples, strict=True)
            ]
            widths = self.fast_widths.choose(cost, free, widths, widths, allowed, multiples, budget)
        return dict(zip(free, widths, strict=True))

    def decide(
        self,
        model: nn.Module,
        name: str,
        seen: ObjectActivations,
        width: int | None = None,
        outputs: Mapping[str, Tensor] | None = None,
        elimination: Elimination | None = None,
    ) -> tuple[GroupDecision, ChannelClustering | None]:
        """Choose the channels of one group.

        Args:
            model: The live model, earlier groups masked.
            name: The group.
            seen: Activations of (at least) its producers.
            width: Planned width; None: the knee within the bounds.
            outputs: Source's name -> what was collected for a criterion that needs activations.
            elimination: What its consumers lose, for a criterion that needs losses.

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
        by_clusters = clustering is not None and "clusters" in self.criterion.needs
        chance = group_chance(group, seen) if by_clusters else None
        noise = chance is not None and chance.is_noise
        criterion, planned = self.criterion, width is not None
        wish = self.count_of(clustering)
        status, reason = "pruned", f"{_NOISE}: its clusters are noise" if noise else ""
        where = "planned width" if planned else "upper bound"
        moments = source_moments(group, seen)
        if noise and self.noise_criterion is not None:
            criterion, wish = self.noise_criterion, None
            by = type(criterion).__name__
            status, reason = "fallback", f"{_NOISE}: channels chosen by {by} at the {where}"
        elif clustering is None and "clusters" in self.criterion.needs:
            why = _ONE_CLASS if moments else _NO_OBJECT
            status, reason = (
                "fallback",
                f"{why}: channels chosen by weight magnitude at the {where}",
            )
        own = clip_width(wish, group.channels, self.keep_range, group.round_to(self.round_to))
        bound: str = own.bound if width in (None, own.width) else "mac_target"
        if bound == "knee" and self.count == "distinct":
            bound = "count"
        evidence = Evidence(model, group, moments, clustering, outputs or {}, elimination)
        decision = GroupDecision(
            group=name,
            keep=criterion.choose(evidence, own.width if width is None else width),
            channels=group.channels,
            knee=None if clustering is None else clustering.knee,
            bound=bound,
            status=status,
            reason=reason,
            separability=None if chance is None else chance.separability,
            separability_at_random=None if chance is None else chance.at_random,
            noise=noise,
            count=None if clustering is None or seen.sample is None else clustering.count,
        )
        return decision, clustering


def _with_mean_fraction(
    wishes: Sequence[int], channels: Sequence[int], unknown: Sequence[bool]
) -> list[int]:
    """Return the wishes, those that are unknown as the mean fraction of the others; half without.

    >>> _with_mean_fraction([1, 8, 4], [16, 16, 16], [True, False, False])
    [6, 8, 4]
    """
    known = [
        wish / wide for wish, wide, no in zip(wishes, channels, unknown, strict=True) if not no
    ]
    fraction = sum(known) / len(known) if known else 0.5
    return [
        max(1, round(fraction * wide)) if no else wish
        for wish, wide, no in zip(wishes, channels, unknown, strict=True)
    ]
