"""What stages may know of one another: these protocols, and nothing else.

A callback takes part by having the members; it derives from nothing here. Protocols that extend
``Masker`` are optional: without them the pipeline traces the model and reads the plan.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl

from lightning_prune.functional.selection.clustering import ChannelClustering
from lightning_prune.graph.group import Attention, ChannelGroups, Norms
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.selection.decision_record import DecisionRecord
from lightning_prune.policies.selection.sequential import GroupDecision
from lightning_prune.surgery.cut import PrunedChannels


@runtime_checkable
class Masker(Protocol):
    """Hold channels at zero until they may be cut.

    When all maskers are finished, `PhysicalPruner` merges their plans, checks that the planned
    channels are zero, and cuts exactly those. Until then `ChannelResetter` resets none of them,
    the regularizers and slice stages leave them out, `EarlyStopping` is suspended, and
    `PruningReport` has a row for each of their layers.
    """

    @property
    def plan(self) -> PruningPlan:
        """What it holds at zero now: empty before the first mask and after the cut."""

    @property
    def finished(self) -> bool:
        """Return whether its masks may be cut out."""


@runtime_checkable
class GroupedMasker(Masker, Protocol):
    """Name the channel groups that the plan is made for: the model is not traced again."""

    @property
    def groups(self) -> ChannelGroups | None:
        """Return the groups of the model as wide as it is; None: not known yet."""


@runtime_checkable
class NormingMasker(Masker, Protocol):
    """Say what norms over cut channels do: all stages of a run try the same groups."""

    @property
    def norms(self) -> Norms:
        """Return "exact" (they count cut channels as zeros) or "plain"."""


@runtime_checkable
class AttentionMasker(Masker, Protocol):
    """Say what of attention goes: all stages of a run try the same groups."""

    @property
    def attention(self) -> Attention:
        """Return "heads" (whole ones), "width" (channels of each head) or "both"."""


@runtime_checkable
class DecidingMasker(Masker, Protocol):
    """Say why each group keeps what it keeps: `PruningReport` shows it."""

    @property
    def decisions(self) -> Sequence[GroupDecision]:
        """What was decided, one per group; it stays after the cut."""


@runtime_checkable
class ClusteringMasker(DecidingMasker, Protocol):
    """Choose channels by clusters: `PruningReport` draws them."""

    @property
    def clusterings(self) -> Mapping[str, ChannelClustering]:
        """Group -> its clusters, as far as this process has them."""


@runtime_checkable
class RecordingMasker(DecidingMasker, Protocol):
    """Keep the numbers that each choice rests on: `PruningReport` stores them in `report_data/`."""

    @property
    def records(self) -> Mapping[str, DecisionRecord]:
        """Group -> its numbers, as far as this process has them."""


@runtime_checkable
class MeasuredMasker(Masker, Protocol):
    """Say how many MACs its masks leave: `PruningReport` records them epoch by epoch."""

    @property
    def macs_fraction(self) -> float | None:
        """Return the fraction of the dense MACs that remains; None: nothing is masked."""


@runtime_checkable
class RoundingMasker(Masker, Protocol):
    """Leave widths that are multiples: slice stages warn where their blocks do not divide them."""

    @property
    def round_to(self) -> int:
        """Return what the number of channels that stay in a layer is a multiple of."""


@runtime_checkable
class DenseCheckpointWriter(Protocol):
    """Save the dense model before the first mask: `PruningReport` lists the file."""

    @property
    def dense_checkpoint(self) -> str | None:
        """Path of the file; None: it is not saved."""


@runtime_checkable
class MaskHolder(Protocol):
    """Hold weights at zero: called where another stage wrote weights between two steps."""

    def apply_mask(self) -> None:
        """Zero again what is held at zero."""


@runtime_checkable
class CutWitness(Protocol):
    """Remember a cut, in checkpoints too: `PrunedCheckpoint` saves from then on."""

    @property
    def is_cut(self) -> bool:
        """Return whether channels were cut in this run."""


@runtime_checkable
class SliceHolder(Protocol):
    """Hold slices at zero: `PruningReport` lists them by layer."""

    @property
    def slice_share(self) -> Mapping[str, float]:
        """Layer -> fraction of its weights that slices hold at zero, in [0, 1]."""


@runtime_checkable
class UsageTracker(Protocol):
    """Count which channels are used: `PruningReport` lists and draws it."""

    @property
    def usage_history(self) -> Mapping[str, Any]:
        """`threshold`, `epochs`, and `layers`: name -> `channels`, `used`, `reset` per epoch."""


@runtime_checkable
class LearningStage(Protocol):
    """Learn from the dense network: `PruningReport` says since when, and with which weights."""

    @property
    def distillation(self) -> Mapping[str, Any]:
        """Return `epoch` (0-based; None: not yet), and `outputs` and `features`, their weights."""


@runtime_checkable
class ImitatingStage(Protocol):
    """Draw what was cut towards the dense network: `PruningReport` says what came of it."""

    @property
    def label_free(self) -> Mapping[str, Any] | None:
        """Return `steps`, `kept`, and agreement `before` and `after`; None: nothing was cut."""


@runtime_checkable
class PlannedStage(Protocol):
    """Say when it acts: a run of the command line prints it before it trains."""

    def calendar(self, pl_module: pl.LightningModule, cuts: bool) -> str | None:
        """Return it in words, epochs counted from 1; None: never. ``cuts``: masks are cut out."""


@runtime_checkable
class EpochStage(Protocol):
    """Say what it does in an epoch: the command line's line of the epoch begins with it."""

    def doing(self, epoch: int) -> str | None:
        """Return it in a word or two, when an epoch (0-based) ends; None: nothing."""


@runtime_checkable
class ChannelsPrunedListener(Protocol):
    """Adapt to a cut: any callback, in the order of the list, and then the LightningModule."""

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Follow a cut, before the next training step; maskers drop their plan here."""
