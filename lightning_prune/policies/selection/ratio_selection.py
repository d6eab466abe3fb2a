"""Selection at a pruning ratio: which channels of all groups go, up to a MAC target."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from torch import Tensor, nn

from lightning_prune.annotations import Such
from lightning_prune.arguments import Count
from lightning_prune.functional.widths.least_loss import least_loss_widths
from lightning_prune.functional.widths.removal import RemovalPath
from lightning_prune.functional.widths.width import least_width, narrower_widths
from lightning_prune.graph.cost_model import CostModel, target_words
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.criterion import Criterion, Evidence, Need, check_observable
from lightning_prune.policies.selection.fast_widths import FastWidths
from lightning_prune.policies.selection.ranking import Ranking, RankingRule, ranking_rule
from lightning_prune.validation import validated

_LOSSES: frozenset[Need] = frozenset({"losses"})
# Of the rule for widths; see ``least_loss_widths``.
_POWER = 0.5
# More than this fraction of the dense MACs under the target, and blocks are exchanged.
_TOLERANCE = 0.005

SmallestKept = Annotated[
    tuple[float, float],
    Such(
        lambda kept: 0 <= kept[0] < kept[1] == 1,
        "the smallest fraction of a layer's channels that stays, in [0, 1), and 1: the ranking may "
        "leave a layer whole",
    ),
]


@dataclass(frozen=True)
class RatioStep:
    """What a step removes, together with the steps before it.

    Attributes:
        plan: Which channels stay, for each selected group.
        ratio: The pruning ratio that was asked for.
        removed: Fraction of the channels of the selected groups that is gone.
        macs: MACs that remain.
        macs_fraction: MACs that remain, as a fraction of the dense model's.
        cost_fraction: The same of what the target counts: MACs, or milliseconds.
        reached: Whether there is no further step: the target is met, or all that may go is gone.
        importance: Group -> (C,) what ranked its channels.
    """

    plan: PruningPlan
    ratio: float
    removed: float
    macs: int
    macs_fraction: float
    cost_fraction: float
    reached: bool
    importance: Mapping[str, Tensor] = field(default_factory=dict)


@validated
@dataclass(frozen=True)
class RatioSelection:
    """Removes the least important channels of many groups, a given fraction or to a MAC target.

    Attributes:
        groups: All groups of the model.
        names: Groups to prune.
        macs: MACs as a function of widths.
        criterion: How important a channel is.
        ranking: ``global``: one ranking over all groups; ``local``: the same ratio in every group;
            ``isomorphic``: one ranking per set of structurally equal groups, and the same ratio in
            every set; ``measured``: as many MACs as with ``local``, at the widths of the least
            loss; or a ``RankingRule``.
        keep_range: Smallest and largest fraction of a group's channels that stays: the smallest
            in [0, 1), the largest 1.
        round_to: Widths are multiples of it; at least one such block remains.
        fast_widths: How widths move to such as run fast; None: they are what the ranking gives.
            With a ``latency`` nothing moves: it knows which are fast.
        latency: Milliseconds as a function of widths: the target is a fraction of these then;
            None: of the MACs.

    Raises:
        ValueError: an argument is out of range.
    """

    groups: ChannelGroups
    names: tuple[str, ...]
    macs: MacModel
    criterion: Criterion
    ranking: Ranking | RankingRule = "global"
    keep_range: SmallestKept = (0.0, 1.0)
    round_to: Count = 1
    fast_widths: FastWidths | None = None
    latency: CostModel | None = None

    @property
    def cost(self) -> CostModel:
        """Return what a target counts."""
        return self.macs if self.latency is None else self.latency

    @property
    def needs(self) -> frozenset[Need]:
        """What must be collected: for the criterion, and for the ranking."""
        measured = ranking_rule(self.ranking).measured
        return self.criterion.needs | (_LOSSES if measured else frozenset())

    @property
    def allowed(self) -> dict[str, tuple[int, ...]]:
        """Return the widths of each group, from its own down."""
        return dict(zip(self.names, self._allowed, strict=True))

    def check(self, model: nn.Module, target: float | None) -> None:
        """Check before training what can be known before training.

        Raises:
            ValueError: the criterion cannot judge a group, or the target is out of reach.
        """
        for name in self.names:
            if self.criterion.needs & {"activations", "clusters"}:
                check_observable(model, self.groups[name])
            self.criterion.check(model, self.groups[name])
        if target is None:
            return
        key, what = target_words(self.cost)
        least = self.cost.cost_of(self.names)([allowed[-1] for allowed in self._allowed])
        if least > target * self.cost.total:
            raise ValueError(
                f"{key}={target:.4g} (fraction of the dense {what} that remains) cannot be "
                f"reached: the {len(self.names)} selected groups leave at least "
                f"{least / self.cost.total:.1%} of the dense {what} with "
                f"keep_range={self._limits} and round_to={self.round_to}; raise {key}, "
                "lower keep_range or round_to, or select more layers"
            )

    def why_nothing(self) -> str | None:
        """Return why no block of channels of any group can be removed, or None."""
        widths = [self.groups[name].channels for name in self.names]
        if not widths:
            return "`layers` selects no layer"
        if any(len(allowed) > 1 for allowed in self._allowed):
            return None
        return (
            f"none of the {len(widths)} layers ({max(widths)} channels at most) has a "
            f"narrower width with round_to={self.round_to} and keep_range={self._limits}"
        )

    def select(
        self,
        model: nn.Module,
        ratio: float,
        target: float | None,
        held: PruningPlan | None = None,
        evidence: Mapping[str, Evidence] | None = None,
    ) -> RatioStep:
        """Choose the channels that are gone at a pruning ratio, none of them beyond the target.

        Where the ratio would take the model under the target, the blocks that were removed last
        are given back and exchanged until the target is met from below as closely as they allow.

        Args:
            model: The live model, its masked channels at zero.
            ratio: Fraction of the channels that is gone after this step, in [0, 1].
            target: Fraction of the dense cost that remains at the end; None: the ratio decides.
            held: What is removed already and stays removed.
            evidence: Group name -> what was collected, if activations, clusters or losses are
                needed; None: nothing.

        Raises:
            NonFiniteImportanceError: an importance is NaN or infinite.
        """
        held = PruningPlan() if held is None else held
        path = self._path(model, held, evidence)
        names, cost = self.names, self.cost
        if ranking_rule(self.ranking).measured:
            widths, met = self._least_loss(path, ratio, target, evidence or {})
        else:
            widths, met = self._widths(path, ratio, target)
        if self.fast_widths is not None and names and self.latency is None:
            widths = self._faster(self.fast_widths, path, widths, ratio, target, met)
        keep = {
            name: order[len(order) - width :].sort()[0]
            for name, order, width in zip(names, path.removed_first, widths, strict=True)
        }
        channels = {name: self.groups[name].channels for name in names}
        macs = self.macs.cost_of(names)(widths)
        cost_fraction = cost.cost_of(names)(widths) / cost.total
        met = met or (target is not None and cost_fraction <= target)
        return RatioStep(
            plan=PruningPlan(keep, channels),
            ratio=ratio,
            removed=1 - sum(widths) / sum(channels.values()) if names else 0.0,
            macs=macs,
            macs_fraction=macs / self.macs.total,
            cost_fraction=cost_fraction,
            reached=met or widths == path.narrowest,
            importance=dict(zip(names, path.importance, strict=True)),
        )

    def _widths(
        self, path: RemovalPath, ratio: float, target: float | None
    ) -> tuple[list[int], bool]:
        """Return the widths that the ranking gives, and whether they meet the target."""
        widths, cost, within = path.widths(ratio), self.cost.cost_of(self.names), None
        if target is not None and cost(widths) <= (budget := target * self.cost.total):
            max_shift = ranking_rule(self.ranking).max_shift
            within = path.widths_within(cost, budget, _TOLERANCE * self.cost.total, max_shift)
        return (widths, False) if within is None else (within, True)

    def _least_loss(
        self,
        path: RemovalPath,
        ratio: float,
        target: float | None,
        evidence: Mapping[str, Evidence],
    ) -> tuple[list[int], bool]:
        """Return the widths that lose least at the cost of the ratio, or at the target."""
        cost = self.cost.cost_of(self.names)
        budget: float = cost(path.widths(ratio))
        met = target is not None and budget <= target * self.cost.total
        if target is not None and met:
            budget = target * self.cost.total
        if cost(path.narrowest) > budget:
            return path.narrowest, False
        losses = []
        for name, widths in zip(self.names, path.allowed, strict=True):
            measured = evidence[name].elimination
            assert measured is not None  # asked for by `needs`
            known = dict(zip(measured.widths, measured.losses, strict=True))
            losses.append([known[width] for width in widths])
        return least_loss_widths(path.allowed, losses, cost, budget, _POWER), met

    def _faster(
        self,
        fast: FastWidths,
        path: RemovalPath,
        widths: list[int],
        ratio: float,
        mac_target: float | None,
        met: bool,
    ) -> list[int]:
        """Move widths to such as are faster, their MACs as they are, or just below a met target."""
        budget: float = self.macs.cost_of(self.names)(widths)
        if met and mac_target is not None:
            budget = mac_target * self.macs.total
        reference = widths
        if ranking_rule(self.ranking).max_shift is not None:
            # Not from where earlier steps went: else every step could go as far again.
            everything = [torch.zeros(self.groups[name].channels) for name in self.names]
            dense = replace(path, importance=everything, gone=[each.bool() for each in everything])
            reference, _ = self._widths(dense, ratio, mac_target)
        return fast.choose(
            self.macs, self.names, widths, reference, path.allowed, self._multiples, budget
        )

    def _path(
        self, model: nn.Module, held: PruningPlan, evidence: Mapping[str, Evidence] | None
    ) -> RemovalPath:
        # A criterion that needs nothing of it may leave `evidence` out of its signature.
        known = {} if evidence is None else {"evidence": evidence}
        importance = self.criterion.comparable(
            model, self.groups, self.names, self.macs, held, **known
        )
        return RemovalPath(
            [importance[name] for name in self.names],
            [self._gone(name, held) for name in self.names],
            ranking_rule(self.ranking).scopes(model, self.groups, self.names),
            self._least,
            self._multiples,
        )

    @property
    def _limits(self) -> str:
        return f"({self.keep_range[0]:.4g}, {self.keep_range[1]:.4g})"

    @property
    def _allowed(self) -> list[tuple[int, ...]]:
        """Widths of each group, from its own down."""
        limits = zip(self._least, self._multiples, strict=True)
        return [
            narrower_widths(self.groups[name].channels, *limit)
            for name, limit in zip(self.names, limits, strict=True)
        ]

    @property
    def _least(self) -> list[int]:
        smallest = self.keep_range[0]
        return [least_width(self.groups[name].channels, smallest) for name in self.names]

    @property
    def _multiples(self) -> list[int]:
        return [self.groups[name].round_to(self.round_to) for name in self.names]

    def _gone(self, name: str, held: PruningPlan) -> Tensor:
        if name in held.keep:
            return ~held.mask(name)
        return torch.zeros(self.groups[name].channels, dtype=torch.bool)
