"""The mask stage of activation pruning: layers chosen front to back by class separability."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn
from tqdm.auto import tqdm

from lightning_prune.callbacks._data import (
    collection_batches,
    example_input,
    forward_batch,
    has_collection_loader,
    samples_function,
)
from lightning_prune.callbacks._trainer_surgery import (
    broadcast,
    forward_context,
    gather,
    mask_averages,
)
from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.functional.clustering import ChannelClustering
from lightning_prune.functional.moments import merge_moments
from lightning_prune.graph.groups import ChannelGroups, build_groups
from lightning_prune.graph.macs import MacModel
from lightning_prune.observe.activations import Matching, ObjectActivations, collect_activations
from lightning_prune.plan import PruningPlan
from lightning_prune.pruners.clusterer import ChannelClusterer
from lightning_prune.pruners.criterion import Criterion
from lightning_prune.pruners.separability import Separability
from lightning_prune.pruners.sequential import GroupDecision, SequentialSelection
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.mask import ChannelMask


class LayerRule(Protocol):
    """A rule that selects groups, such as ``WidestLayers``."""

    def select(self, model: nn.Module, groups: ChannelGroups) -> tuple[str, ...]:
        """Return the names of the groups to prune."""


class SequentialActivationMasker(PruningStage):
    """Mask channels layer by layer, keeping those that tell the classes apart.

    At each step the next layers, front to back, are judged by their activations at the objects of
    the training split, with all earlier layers already masked; of every cluster of channels that
    separate the classes alike, the strongest stays. Masked channels are held at zero while
    training goes on, until a ``PhysicalPruner`` cuts them.

    Args:
        start_epoch: Epoch (0-based) at whose start the first layers are masked.
        mac_target: Fraction of the dense model's MACs that remains, in (0, 1), met from below by
            scaling all widths; None: every layer keeps its own knee.
        keep_range: Smallest and largest fraction of a layer's channels that stay; None: no bounds.
        round_to: Widths are multiples of it (channels).
        layers: Names or patterns of the layers to prune, or a rule such as ``WidestLayers``;
            None: all prunable layers.
        criterion: Which channels stay at a layer's width; None: ``Separability``. The baselines
            ``Magnitude``, ``BNScale``, ``RandomChoice`` get the same widths.
        clusterer: How channels are clustered; None: the defaults of ``ChannelClusterer``.
        layers_per_step: Layers masked at once; None: all of them in one step.
        epochs_per_step: Epochs of training between two steps.
        hold_epochs: Epochs of training with all masks before the cut.
        images: Training images read per layer; None: all of them.
        matching: ``detected``: only objects that the model got right; ``all``: every one.
        background: Background cells as one more class: True, False, or ``auto``: where the data
            have one class only.
        dry_run: Print the plan, the widths and the resulting MACs, and stop before training.
        dense_checkpoint: Where the dense model is saved before the first mask; None: nowhere.
        seed: Seed of the background cells.

    Raises:
        ValueError: an argument is out of range; before training: an unknown layer, an unreachable
            MAC target, a schedule that ends after the last epoch, an unsupported strategy.

    Source: Levin and Singer, 2024, arXiv 2309.02272; and CoSeP, 2025, arXiv 2505.13225.
    """

    def __init__(
        self,
        start_epoch: int = 0,
        mac_target: float | None = None,
        keep_range: tuple[float, float] | list[float] | None = (0.25, 0.5),
        round_to: int = 1,
        layers: list[str] | LayerRule | None = None,
        criterion: Criterion | None = None,
        clusterer: ChannelClusterer | None = None,
        layers_per_step: int | None = None,
        epochs_per_step: int = 1,
        hold_epochs: int = 1,
        images: int | None = 512,
        matching: Matching = "detected",
        background: bool | Literal["auto"] = "auto",
        dry_run: bool = False,
        dense_checkpoint: str | None = None,
        seed: int = 0,
    ) -> None:
        _check_counts(
            start_epoch=(start_epoch, 0),
            round_to=(round_to, 1),
            layers_per_step=(layers_per_step, 1),
            epochs_per_step=(epochs_per_step, 1),
            hold_epochs=(hold_epochs, 0),
            images=(images, 1),
        )
        if mac_target is not None and not 0 < mac_target < 1:
            raise ValueError(
                f"mac_target={mac_target} is outside (0, 1): pass the fraction of the dense "
                "model's MACs that remains, for example 0.5"
            )
        if matching not in ("detected", "all"):
            raise ValueError(f"matching={matching!r}: allowed are 'detected' and 'all'")
        if background not in (True, False, "auto"):
            raise ValueError(f"background={background!r}: allowed are true, false and 'auto'")
        self.start_epoch = start_epoch
        self.mac_target = mac_target
        self.keep_range = _pair(keep_range)
        self.round_to = round_to
        self.layers = layers
        self.criterion = criterion or Separability()
        self.clusterer = clusterer or ChannelClusterer()
        self.layers_per_step = layers_per_step
        self.epochs_per_step = epochs_per_step
        self.hold_epochs = hold_epochs
        self.images = images
        self.matching = matching
        self.background = background
        self.dry_run = dry_run
        self.dense_checkpoint = dense_checkpoint
        self.seed = seed

        self.decisions: list[GroupDecision] = []
        self.clusterings: dict[str, ChannelClustering] = {}
        self.finished = False
        self._widths: dict[str, int] | None = None
        self._cut = False
        self._selection: SequentialSelection | None = None
        self._macs: MacModel | None = None
        self._mask: ChannelMask | None = None

    # --- what other stages read -------------------------------------------------------------

    @property
    def plan(self) -> PruningPlan:
        """What is held at zero: empty before the first step and after the cut."""
        if self._cut:
            return PruningPlan()
        masked = [d for d in self.decisions if d.status != "left"]
        return PruningPlan({d.group: d.keep for d in masked}, {d.group: d.channels for d in masked})

    @property
    def groups(self) -> ChannelGroups | None:
        """The channel groups of the model, once training has started."""
        return None if self._selection is None else self._selection.groups

    # --- hooks ------------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Resolve layers and check the schedule and the MAC target before the first batch."""
        if pl_module.example_input_array is not None:
            self._prepare(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up a resumed run's masks, or print the dry run and stop."""
        self._prepare(trainer, pl_module)
        if self._cut:
            return
        if self.dry_run:
            self._print_dry_run(trainer, pl_module)
            trainer.should_stop = True
            trainer.limit_train_batches = 0
            return
        if self.plan:
            self._hold(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mask what is due at this epoch; idempotent."""
        if self._cut or self.dry_run or self._selection is None:
            return
        epoch, names = trainer.current_epoch, self._selection.names
        if epoch >= self.start_epoch and len(self.decisions) < len(names):
            due = self._due(epoch, len(names))
            if not self.decisions and self.dense_checkpoint is not None:
                trainer.save_checkpoint(self.dense_checkpoint, weights_only=True)
            if self._widths is None and self.mac_target is not None:
                self._widths = self._plan_widths(trainer, pl_module)
            due_names = names[len(self.decisions) : due]
            for name in tqdm(
                due_names, "Choosing channels", leave=False, disable=not trainer.is_global_zero
            ):
                self._decide(trainer, pl_module, name)
        self.finished = len(self.decisions) == len(names) and epoch >= self._cut_epoch(len(names))

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Let go of the masks: the channels are gone."""
        if self._mask is not None:
            self._mask.release()
        self._mask, self._selection, self._macs, self._cut = None, None, None, True

    def state_dict(self) -> dict[str, Any]:
        """Return decisions and progress as plain data."""
        return {
            "decisions": [decision.state_dict() for decision in self.decisions],
            "widths": self._widths,
            "finished": self.finished,
            "cut": self._cut,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up decisions and progress."""
        self.decisions = [
            GroupDecision(**{**decision, "keep": decision["keep"].cpu()})
            for decision in state_dict["decisions"]
        ]
        self._widths = state_dict["widths"]
        self.finished = state_dict["finished"]
        self._cut = state_dict["cut"]

    # --- preparation ------------------------------------------------------------------------

    def _prepare(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._selection is not None or self._cut:
            return
        example = example_input(trainer, pl_module)
        groups = build_groups(pl_module, example)
        if not groups:
            reasons = "; ".join(f"{k}: {v}" for k, v in list(groups.refused.items())[:3])
            raise ValueError(f"no layer of {type(pl_module).__name__} can be pruned ({reasons})")
        names = self._select(pl_module, groups)
        selection = SequentialSelection(
            groups, names, self.clusterer, self.criterion, self.keep_range, self.round_to
        )
        macs = MacModel.of(pl_module, groups, example)
        selection.check(pl_module, macs, self.mac_target)
        if not self.dry_run:
            self._check_schedule(trainer, len(names))
        self._selection, self._macs = selection, macs

    def _select(self, pl_module: pl.LightningModule, groups: ChannelGroups) -> tuple[str, ...]:
        if self.layers is None or isinstance(self.layers, Sequence):
            try:
                return groups.select(self.layers)
            except KeyError as error:
                raise ValueError(f"layers: {error.args[0]}") from error
        return self.layers.select(pl_module, groups)

    def _steps(self, groups: int) -> int:
        return 1 if self.layers_per_step is None else math.ceil(groups / self.layers_per_step)

    def _due(self, epoch: int, groups: int) -> int:
        steps = (epoch - self.start_epoch) // self.epochs_per_step + 1
        return groups if self.layers_per_step is None else min(groups, steps * self.layers_per_step)

    def _cut_epoch(self, groups: int) -> int:
        return (
            self.start_epoch + (self._steps(groups) - 1) * self.epochs_per_step + self.hold_epochs
        )

    def _check_schedule(self, trainer: pl.Trainer, groups: int) -> None:
        last = trainer.max_epochs
        if last is None or last < 0:
            return
        if self.start_epoch >= last:
            rank_zero_warn(
                f"start_epoch={self.start_epoch} lies after the last epoch (max_epochs={last}): "
                "nothing will be pruned"
            )
        elif self._cut_epoch(groups) >= last:
            raise ValueError(
                f"the cut would fall on epoch {self._cut_epoch(groups)} but max_epochs={last}: "
                f"start_epoch={self.start_epoch} + {self._steps(groups) - 1} further steps x "
                f"epochs_per_step={self.epochs_per_step} + hold_epochs={self.hold_epochs} must be "
                "less than max_epochs, so that the cut model is trained"
            )

    # --- decisions --------------------------------------------------------------------------

    def _background(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> int | None:
        if self.background is False:
            return None
        owners = (pl_module, getattr(trainer, "datamodule", None))
        known = [n for n in (getattr(o, "num_classes", None) for o in owners) if n is not None]
        if self.background == "auto":
            return 1 if known and known[0] == 1 else None
        if not known:
            raise ValueError(
                "background=true needs num_classes on the LightningModule or the DataModule"
            )
        return int(known[0])

    def _observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, names: Sequence[str]
    ) -> ObjectActivations:
        assert self._selection is not None
        layers = [layer for name in names for layer in self._selection.groups[name].producers]
        with forward_context(trainer), warnings.catch_warnings():
            if self.decisions:
                # Rare classes have been named at the first layer.
                warnings.filterwarnings("ignore", message="classes with fewer than 10")
            seen = collect_activations(
                pl_module,
                collection_batches(trainer, pl_module, self.images),
                layers,
                samples_function(pl_module),
                forward_batch,
                matching=self.matching,
                background=self._background(trainer, pl_module),
                seed=self.seed + trainer.global_rank,
            )
        return merge_ranks(gather(trainer, seen))

    def _plan_widths(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, int]:
        selection, macs = self._selection, self._macs
        assert selection is not None and macs is not None and self.mac_target is not None
        has_collection_loader(trainer, pl_module)
        seen = self._observe(trainer, pl_module, selection.names)
        widths: dict[str, int] | None = None
        if trainer.is_global_zero:
            knees: dict[str, int | None] = {}
            for name in selection.names:
                group = selection.groups[name]
                clustering = (
                    None if selection.why_left(group) else selection.cluster(group, seen)
                )
                knees[name] = None if clustering is None else clustering.knee
            widths = selection.plan_widths(knees, macs, self.mac_target)
        planned: dict[str, int] = broadcast(trainer, widths)
        share = macs.remaining(planned) / macs.total
        rank_zero_info(
            f"Planned widths of {len(planned)} groups leave {share:.1%} of the MACs "
            f"(target {self.mac_target:.1%})."
        )
        return planned

    def _decide(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> None:
        selection = self._selection
        assert selection is not None
        seen = self._observe(trainer, pl_module, [name])
        decision: GroupDecision | None = None
        if trainer.is_global_zero:
            width = None if self._widths is None else self._widths.get(name)
            decision, clustering = selection.decide(pl_module, name, seen, width)
            if clustering is not None:
                self.clusterings[name] = clustering
        decision = broadcast(trainer, decision)
        assert decision is not None
        if decision.status == "fallback":
            rank_zero_warn(f"{name}: {decision.reason}")
        self.decisions.append(decision)
        self._hold(trainer, pl_module)

    def _hold(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self._selection is not None
        if self._mask is not None:
            self._mask.release()
        self._mask = ChannelMask(pl_module, self._selection.groups, self.plan)
        self._mask.hold(trainer.optimizers)
        mask_averages(trainer, self._selection.groups, self.plan)

    def _print_dry_run(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from lightning_prune.report.dry_run import dry_run_text

        selection, macs = self._selection, self._macs
        assert selection is not None and macs is not None
        seen = self._observe(trainer, pl_module, selection.names)
        widths = None
        if self.mac_target is not None:
            widths = self._plan_widths(trainer, pl_module)
        decisions = [
            selection.decide(pl_module, name, seen, widths.get(name) if widths else None)[0]
            for name in selection.names
        ]
        rank_zero_info(dry_run_text(decisions, macs))


def _check_counts(**given: tuple[int | None, int]) -> None:
    for name, (value, least) in given.items():
        if value is not None and value < least:
            raise ValueError(f"{name}={value}: pass an integer of at least {least}")


def _pair(keep_range: Sequence[float] | None) -> tuple[float, float] | None:
    if keep_range is None:
        return None
    if len(keep_range) != 2 or not 0 < keep_range[0] <= keep_range[1] <= 1:
        raise ValueError(
            f"keep_range={list(keep_range)}: pass [smallest, largest] fractions of the channels "
            "that stay, 0 < smallest <= largest <= 1, for example [0.25, 0.5]"
        )
    return float(keep_range[0]), float(keep_range[1])


def merge_ranks(parts: list[ObjectActivations]) -> ObjectActivations:
    """Merge what the ranks saw, exactly."""
    merged = parts[0]
    for part in parts[1:]:
        both = (merged.moments, part.moments)
        if both[0] is None or both[1] is None:
            merged.moments = both[0] or both[1]
            merged.widths = merged.widths or part.widths
        else:
            merged.moments = merge_moments(both[0], both[1])
        merged.objects += part.objects
        merged.matched += part.matched
    return merged
