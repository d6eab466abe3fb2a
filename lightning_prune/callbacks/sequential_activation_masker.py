"""The mask stage of activation pruning: layers chosen front to back by class separability."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from tqdm.auto import tqdm

from lightning_prune.callbacks._arguments import check_counts, checked_range
from lightning_prune.callbacks._data import has_collection_loader
from lightning_prune.callbacks._decision_warnings import warn_of_decisions
from lightning_prune.callbacks._gradients import informed
from lightning_prune.callbacks._observation import Background, observe_objects, recalibrate
from lightning_prune.callbacks._schedule import last_epoch
from lightning_prune.callbacks.masking_stage import MaskingStage
from lightning_prune.callbacks.trainer.loops import stop_before_training
from lightning_prune.functional.selection.clustering import ChannelClustering
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel
from lightning_prune.observe.activations import (
    Matching,
    ObjectActivations,
    warn_of_rare_classes,
)
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.criterion import Criterion
from lightning_prune.policies.criteria.separability import Separability
from lightning_prune.policies.layers.layer_rule import LayerRule
from lightning_prune.policies.selection.clusterer import ChannelClusterer
from lightning_prune.policies.selection.fast_widths import FAST_WIDTHS, FastWidths
from lightning_prune.policies.selection.sequential import GroupDecision, SequentialSelection
from lightning_prune.policies.selection.step_schedule import StepSchedule
from lightning_prune.report.dry_run import dry_run_text


class SequentialActivationMasker(MaskingStage[SequentialSelection]):
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
        fast_widths: With a ``mac_target``: moves the planned widths a little, at the same MACs, to
            those that take least time on the target; None: they stay.
        layers: Names or patterns of the layers to prune, or a rule such as ``WidestLayers``;
            None: all prunable layers.
        criterion: Which channels stay at a layer's width; None: ``Separability``. The baselines
            ``Magnitude``, ``BNScale``, ``RandomChoice`` get the same widths.
        clusterer: How channels are clustered; None: the defaults of ``ChannelClusterer``.
        layers_per_step: Layers masked at once; None: all of them in one step.
        epochs_per_step: Epochs of training between two steps.
        hold_epochs: Epochs of training with all masks before the cut.
        images: Training images read per layer; None: all of them.
        recalibrate_images: Training images from which norm statistics are estimated anew before
            each further step and after each layer, so that the masked model still finds its
            objects; 0: never.
        matching: ``detected``: only objects that the model got right; ``all``: every one.
        background: Background cells as one more class: True, False, or ``auto``: where the data
            have one class only.
        dry_run: Print the plan, the widths and the resulting MACs, and stop before training.
        dense_checkpoint: Where the dense model is saved before the first mask, its weights as they
            are validated (averaged, if they are); None: nowhere.
        seed: Seed of the background cells.

    Raises:
        ValueError: an argument is out of range; before training: an unknown layer, an unreachable
            MAC target, a schedule that ends after the last epoch, an unsupported strategy.

    Source: Levin and Singer, 2024, arXiv 2309.02272; and CoSeP, 2025, arXiv 2505.13225.
    """

    def __init__(
        self,
        start_epoch: int = 0,
        mac_target: float | None = 0.5,
        keep_range: tuple[float, float] | list[float] | None = (0.25, 0.75),
        round_to: int = 8,
        fast_widths: FastWidths | None = FAST_WIDTHS,
        layers: list[str] | LayerRule | None = None,
        criterion: Criterion | None = None,
        clusterer: ChannelClusterer | None = None,
        layers_per_step: int | None = 10,
        epochs_per_step: int = 1,
        hold_epochs: int = 1,
        images: int | None = 256,
        recalibrate_images: int = 64,
        matching: Matching = "detected",
        background: Background = "auto",
        dry_run: bool = False,
        dense_checkpoint: str | None = None,
        seed: int = 0,
    ) -> None:
        check_counts(
            start_epoch=(start_epoch, 0),
            round_to=(round_to, 1),
            layers_per_step=(layers_per_step, 1),
            epochs_per_step=(epochs_per_step, 1),
            hold_epochs=(hold_epochs, 0),
            images=(images, 1),
            recalibrate_images=(recalibrate_images, 0),
        )
        if matching not in ("detected", "all"):
            raise ValueError(f"matching={matching!r}: allowed are 'detected' and 'all'")
        if background not in (True, False, "auto"):
            raise ValueError(f"background={background!r}: allowed are true, false and 'auto'")
        super().__init__(
            mac_target, layers, criterion or Separability(), recalibrate_images, dense_checkpoint
        )
        self.schedule = StepSchedule(start_epoch, layers_per_step, epochs_per_step, hold_epochs)
        self.keep_range = checked_range(keep_range)
        self.round_to = round_to
        self.fast_widths = fast_widths
        self.clusterer = clusterer or ChannelClusterer()
        self.images = images
        self.matching = matching
        self.background = background
        self.dry_run = dry_run
        self.seed = seed

        self.decisions: list[GroupDecision] = []
        self.clusterings: dict[str, ChannelClustering] = {}
        self._widths: dict[str, int] | None = None
        self._late: int | None = None
        self._warned = False

    # --- what other stages read -------------------------------------------------------------

    @property
    def plan(self) -> PruningPlan:
        """What is held at zero: empty before the first step and after the cut."""
        if self._cut:
            return PruningPlan()
        masked = [d for d in self.decisions if d.status != "left"]
        return PruningPlan({d.group: d.keep for d in masked}, {d.group: d.channels for d in masked})

    # --- hooks ------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up a resumed run's masks, or print the dry run and stop."""
        self._prepare(trainer, pl_module)
        if self.dry_run and not self._cut:
            self._print_dry_run(trainer, pl_module)
            stop_before_training(trainer)
        elif self.plan:
            self._hold(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mask what is due at this epoch; idempotent."""
        if self._cut or self.dry_run or self._selection is None:
            return
        epoch, names = trainer.current_epoch, self._selection.names
        due = names[len(self.decisions) : self.schedule.due(epoch, len(names))]
        if due and epoch != self._skipped and self._take_step(trainer, pl_module, due):
            self._late = self._late if self._skipped is None else epoch
        complete = len(self.decisions) == len(names)
        cut = self.schedule.cut_epoch(len(names))
        if self._late is not None:
            # A step that was tried again gets its epochs of training with all masks too.
            cut = max(cut, self._late + self.schedule.hold_epochs)
        self.finished = complete and epoch >= cut

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say where a run ends without a mask or a cut."""
        super().on_train_end(trainer, pl_module)
        if self._skipped is not None and not self.finished and not self._cut:
            rank_zero_warn(
                f"training ends before all channels could be chosen and cut: in epoch "
                f"{self._skipped + 1} activations or importances were not finite (warned of then), "
                f"and {len(self.decisions)} groups are decided; train for more epochs"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return decisions and progress as plain data."""
        return super().state_dict() | {
            "decisions": [decision.state_dict() for decision in self.decisions],
            "widths": self._widths,
            "late": self._late,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up decisions and progress."""
        super().load_state_dict(state_dict)
        self.decisions = [
            GroupDecision(**{**decision, "keep": decision["keep"].cpu()})
            for decision in state_dict["decisions"]
        ]
        self._widths = state_dict["widths"]
        self._late = state_dict.get("late")
        self.clusterings, self._warned = {}, False

    # --- preparation ------------------------------------------------------------------------

    def _choose_among(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        groups: ChannelGroups,
        names: tuple[str, ...],
        macs: MacModel,
    ) -> SequentialSelection:
        limits = self.keep_range, self.round_to, self.fast_widths
        selection = SequentialSelection(groups, names, self.clusterer, self.criterion, *limits)
        selection.check(pl_module, macs, self.mac_target)
        nothing = selection.why_nothing()
        if nothing is not None:
            rank_zero_warn(
                f"SequentialActivationMasker has no effect: {nothing}; lower round_to or the first "
                "bound of keep_range, or select wider layers"
            )
        if not self.dry_run:
            self._check_schedule(trainer, len(names))
        return selection

    def _check_schedule(self, trainer: pl.Trainer, groups: int) -> None:
        last = last_epoch(trainer, self.schedule.start_epoch, "nothing will be pruned")
        if last is None:
            return
        contradiction = self.schedule.contradiction(last, groups)
        if contradiction is not None:
            raise ValueError(contradiction)

    # --- decisions --------------------------------------------------------------------------

    def _take_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, due: Sequence[str]
    ) -> bool:
        """Decide for the groups that are due; tell whether all of them could be."""
        if not self.decisions:
            if not self._begin(trainer, pl_module):
                return False
        elif self.recalibrate_images:
            # An epoch is too short for a small momentum to follow what the last masks changed.
            recalibrate(trainer, pl_module, self.recalibrate_images)
        known, silent = len(self.decisions), not trainer.is_global_zero
        names = tqdm(due, "Choosing channels", leave=False, disable=silent)
        # The first group that cannot be decided stops the step: later ones build on it.
        complete = all(self._decide(trainer, pl_module, name) for name in names)
        warn_of_decisions(self.decisions[known:])
        return complete

    def _begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        has_collection_loader(trainer, pl_module)
        self._save_dense(trainer)
        if self._widths is None and self.mac_target is not None:
            self._widths = self._plan_widths(trainer, pl_module)
        return self._widths is not None or self.mac_target is None

    def _observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, names: Sequence[str]
    ) -> ObjectActivations:
        assert self._selection is not None
        seen = observe_objects(
            trainer,
            pl_module,
            [source.layer for name in names for source in self._selection.groups[name].sources],
            images=self.images,
            matching=self.matching,
            background=self.background,
            seed=self.seed,
            beside_chance=self.criterion.uses_clusters and len(names) == 1,
        )
        if not self._warned and trainer.is_global_zero:
            warn_of_rare_classes(seen)
        self._warned = True
        return seen

    def _plan_widths(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int] | None:
        selection, macs, target = self._selection, self._macs, self.mac_target
        assert selection is not None
        assert macs is not None
        assert target is not None
        seen = self._observe(trainer, pl_module, selection.names)

        def plan() -> dict[str, int]:
            knees: dict[str, int | None] = {}
            for name in tqdm(selection.names, "Planning widths", leave=False):
                group = selection.groups[name]
                clustering = None if selection.why_left(group) else selection.cluster(group, seen)
                knees[name] = None if clustering is None else clustering.knee
            return selection.plan_widths(knees, macs, target)

        planned = self._decided(trainer, plan)
        if planned is None:
            return None
        share = macs.remaining(planned) / macs.total
        rank_zero_info(
            f"Planned widths of {len(planned)} groups leave {share:.1%} of the MACs "
            f"(target {target:.1%})."
        )
        return planned

    def _decide(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> bool:
        selection = self._selection
        assert selection is not None
        seen = self._observe(trainer, pl_module, [name])

        def decide() -> GroupDecision:
            width = None if self._widths is None else self._widths.get(name)
            found, clustering = selection.decide(pl_module, name, seen, width)
            if clustering is not None:
                self.clusterings[name] = clustering
            return found

        with informed(trainer, pl_module, self.criterion, selection.groups, [name], self.images):
            decision = self._decided(trainer, decide)
        if decision is None:
            return False
        self.decisions.append(decision)
        self._hold(trainer, pl_module)
        if decision.status != "left" and self.recalibrate_images:
            recalibrate(trainer, pl_module, self.recalibrate_images)
        return True

    def _forget(self, names: Iterable[str]) -> None:
        freed = set(names)
        self.decisions = [
            dataclasses.replace(
                decision, keep=torch.arange(decision.channels), status="left", reason="mask lifted"
            )
            if decision.group in freed
            else decision
            for decision in self.decisions
        ]

    def _print_dry_run(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        selection, macs = self._selection, self._macs
        assert selection is not None
        assert macs is not None
        seen = self._observe(trainer, pl_module, selection.names)
        widths = None if self.mac_target is None else self._plan_widths(trainer, pl_module)
        groups, names = selection.groups, selection.names
        with informed(trainer, pl_module, self.criterion, groups, names, self.images):
            decided = (selection.decide(pl_module, n, seen, (widths or {}).get(n)) for n in names)
            decisions = [decision for decision, _ in decided]
        # Printed, not logged: it is what was asked for, whatever the log level.
        rank_zero_only(print)(dry_run_text(decisions, macs))
