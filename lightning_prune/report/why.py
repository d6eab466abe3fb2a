"""Why a channel stayed or went: its numbers, its rivals, and how sure that is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_prune.functional.selection.clustering import cluster_channels
from lightning_prune.functional.selection.moments import ClassMoments
from lightning_prune.functional.selection.selection import choose_channels
from lightning_prune.policies.selection.decision_record import SourceMoments, separability_of
from lightning_prune.report.stored_decision import StoredDecision

_RIVALS = 5
_SURE = 0.9


def _all(items: Sequence[int]) -> Iterable[int]:
    return items


@dataclass(frozen=True)
class Why:
    """What is known of the choice of a channel.

    Attributes:
        group: Its group.
        channel: Its place in it.
        kept: Whether it stayed.
        channels: How many the group had.
        width: How many stayed.
        bound: What set the width.
        rank: Its place by importance, 1 the most important; None: importance is not known.
        importance: Its importance.
        edge: Importance of the weakest channel that stayed and of the strongest one that went;
            None: not known, or nothing went.
        norm: Its filter's l1 norm, and where it stands among those of the group, 1 the largest.
        cluster: Channels of its cluster, the one that stays first; empty: there were no clusters.
        frequency: In which fraction of the draws it stayed; None: nothing to draw from.
        draws: How many draws.
    """

    group: str
    channel: int
    kept: bool
    channels: int
    width: int
    bound: str
    rank: int | None
    importance: float | None
    edge: tuple[float, float] | None
    norm: tuple[float, int] | None
    cluster: tuple[int, ...]
    frequency: float | None
    draws: int

    @property
    def lines(self) -> list[str]:
        """Return it in words, a line for each."""
        stays = "stays" if self.kept else "is cut"
        found = [
            f"{self.group}, channel {self.channel}: {stays} ({self.width} of {self.channels} "
            f"stay; width set by {self.bound})"
        ]
        if self.rank is not None:
            found.append(f"importance {self.importance:.4g}, rank {self.rank} of {self.channels}")
        if self.edge is not None and not self.cluster:
            found.append(
                f"the weakest that stays has {self.edge[0]:.4g}, the strongest that is cut "
                f"{self.edge[1]:.4g}"
            )
        if self.norm is not None:
            found.append(f"l1 norm of its filter {self.norm[0]:.4g}, rank {self.norm[1]}")
        if self.cluster:
            first, *others = self.cluster
            shown = ", ".join(map(str, others[:_RIVALS])) or "none"
            more = f" and {len(others) - _RIVALS} more" if len(others) > _RIVALS else ""
            found.append(f"its cluster: channel {first} stays for it; others: {shown}{more}")
        if self.frequency is not None:
            sure = max(self.frequency, 1 - self.frequency) >= _SURE
            found.append(
                f"it stays in {self.frequency:.0%} of {self.draws} draws of other objects: "
                + ("sure" if sure else "not sure: another sample of images may choose otherwise")
            )
        return found


def why(
    stored: StoredDecision,
    channel: int,
    draws: int = 40,
    seed: int = 0,
    progress: Callable[[Sequence[int]], Iterable[int]] = _all,
) -> Why:
    """Return why a channel stayed or went, from what was stored of the decision.

    Where class statistics were stored, the choice is made again on statistics as other objects of
    the same numbers would give them: means and variances of each channel and class are drawn from
    their errors, as a Poisson bootstrap over normal activations would change them (standard errors
    s / sqrt(n) and s^2 sqrt(2 / (n - 1))), and channels are clustered and chosen at the same width.

    Args:
        stored: What was stored of the group.
        channel: Which of its channels.
        draws: How often the choice is made again; 0: not at all.
        seed: Of the draws.
        progress: Shows how far it has come.

    Raises:
        ValueError: there is no such channel.
    """
    facts, arrays = stored.facts, stored.arrays
    channels, keep = int(facts["channels"]), [int(one) for one in facts["keep"]]
    if not 0 <= channel < channels:
        raise ValueError(
            f"channel {channel}: {facts['group']} had {channels} channels, 0 to {channels - 1}"
        )
    importance, norms = arrays.get("importance"), arrays.get("norms")
    gone = [one for one in range(channels) if one not in set(keep)]
    edge = None
    if importance is not None and gone and keep:
        edge = float(importance[keep].min()), float(importance[gone].max())
    frequency, made = None, 0
    if draws and "count_0" in arrays and facts["clusterer"] and len(keep) < channels:
        found = [_again(stored, one) for one in progress(range(seed, seed + draws))]
        frequency, made = float(np.mean([channel in one for one in found])), draws
    return Why(
        group=str(facts["group"]),
        channel=channel,
        kept=channel in keep,
        channels=channels,
        width=len(keep),
        bound=str(facts["bound"]),
        rank=None if importance is None else _rank(importance, channel),
        importance=None if importance is None else float(importance[channel]),
        edge=edge,
        norm=None if norms is None else (float(norms[channel]), _rank(norms, channel)),
        cluster=_cluster(arrays.get("labels"), channel, keep),
        frequency=frequency,
        draws=made,
    )


def _rank(values: np.ndarray, channel: int) -> int:
    return 1 + int((values > values[channel]).sum())


def _cluster(labels: np.ndarray | None, channel: int, keep: Sequence[int]) -> tuple[int, ...]:
    if labels is None:
        return ()
    same = np.flatnonzero(labels == labels[channel]).tolist()
    return tuple(sorted(same, key=lambda one: (one not in keep, one)))


def _again(stored: StoredDecision, seed: int) -> set[int]:
    """Return which channels stay by the statistics of other objects."""
    facts, arrays = stored.facts, stored.arrays
    random = torch.Generator().manual_seed(seed)
    sources = []
    for place, layer in enumerate(facts["sources"]):
        count, mean, variance = (
            torch.from_numpy(arrays[f"{name}_{place}"]).double() for name in _MOMENTS
        )
        index = torch.from_numpy(arrays[f"channel_{place}"].astype(np.int64))
        sources.append(SourceMoments(layer, index, _drawn(count, mean, variance, random)))
    matrix = separability_of(sources, int(facts["channels"]))
    clustering = cluster_channels(matrix, **facts["clusterer"])
    weights = arrays.get("importance", arrays.get("norms"))
    assert weights is not None
    chosen = choose_channels(
        clustering, torch.from_numpy(weights.astype(np.float64)), len(facts["keep"])
    )
    return set(chosen.keep.tolist())


_MOMENTS = ("count", "mean", "variance")


def _drawn(count: Tensor, mean: Tensor, variance: Tensor, random: torch.Generator) -> ClassMoments:
    enough = count.clamp(min=2)
    noise: list[Any] = [
        torch.randn(mean.shape, generator=random, dtype=torch.float64) for _ in range(2)
    ]
    means = mean + noise[0] * (variance / enough).sqrt()
    spread = variance * (1 + noise[1] * (2 / (enough - 1)).sqrt())
    # What can be drawn below zero is of classes with a handful of objects.
    spread = spread.clamp(min=0.0).maximum(0.01 * variance)
    return ClassMoments(count, means, spread, means.abs())
