"""The mask stage of activation pruning: layers chosen front to back by class separability."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from lightning_prune.arguments import (
    Count,
    Epoch,
    HoldEpochs,
    KeepRange,
    LatencyTarget,
    MacTarget,
    OptionalCount,
    TrainingImages,
)
from lightning_prune.callbacks._calendar import masks_goal
from lightning_prune.callbacks._decision_warnings import warn_of_decisions
from lightning_prune.callbacks._front_end import TrainerFrontEnd
from lightning_prune.callbacks._latency import LatencyAim
from lightning_prune.callbacks._observation import Background, Observation
from lightning_prune.callbacks._schedule import last_epoch
from lightning_prune.callbacks.masking_stage import MaskingStage
from lightning_prune.callbacks.trainer.loops import stop_before_training
from lightning_prune.engine.dry_run import dry_run
from lightning_prune.engine.mask_state import MaskState, measured_words
from lightning_prune.engine.masking import Images, Masking
from lightning_prune.engine.sequential_policy import SequentialPolicy
from lightning_prune.engine.steps import GroupSteps
from lightning_prune.functional.selection.clustering import ChannelClustering
from lightning_prune.graph.group import Attention, ChannelGroups, Norms
from lightning_prune.graph.macs import MacModel
from lightning_prune.observe.activations import Matching
from lightning_prune.policies.criteria.criterion import Criterion, why_hidden, why_unmet
from lightning_prune.policies.criteria.separability import Separability
from lightning_prune.policies.layers.layer_rule import LayerChoice
from lightning_prune.policies.selection.clusterer import ChannelClusterer
from lightning_prune.policies.selection.decision_record import DecisionRecord
from lightning_prune.policies.selection.fast_widths import FAST_WIDTHS, FastWidths
from lightning_prune.policies.selection.sequential import (
    CountRule,
    GroupDecision,
    SequentialSelection,
)
from lightning_prune.policies.selection.step_schedule import StepSchedule
from lightning_prune.report.dry_run import dry_run_text
from lightning_prune.validation import validated


class SequentialActivationMasker(MaskingStage[SequentialPolicy]):
    """Mask channels layer by layer, keeping those that tell the classes apart.

    At each step the next layers, front to back, are judged by their activations at the objects of
    the training split, with all earlier layers already masked; of every cluster of channels that
    separate the classes alike, the strongest stays. Masked channels are held at zero while
    training continues, until a ``PhysicalPruner`` cuts them.

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
        recalibrate_images: Training images from which norm statistics are estimated again before
            each further step and after each layer, so that the masked model still finds its
            objects; 0: never.
        compensate_images: Training images from which, after each step, every layer behind a mask
            is fitted by least squares to what the model gave before it, front to back, norms
            included (``walked_refit``); 0: never. Averaged copies start again at each step.
        matching: ``detected``: only objects that the model got right; ``all``: every one.
        background: Background cells as one more class: True, False, or ``auto``: where the data
            have one class only.
        dry_run: Print the plan, the widths and the resulting MACs, and stop before training.
        dense_checkpoint: Where the dense model is saved before the first mask, its weights as they
            are validated (averaged, if they are); None: nowhere.
        seed: Seed of the background cells.
        norms: ``exact``: layer, group and RMS norms count channels that are cut as zeros, so that
            the cut changes no output; ``plain``: they take statistics of the channels left, and
            the log says by how much outputs differ.
        attention: What of attention goes: whole ``heads``, the same channels of the ``width`` of
            every head, or ``both``.
        count: What sets a layer's width, before a ``mac_target`` scales all of them: the ``knee``,
            or the number of ``distinct`` profiles beside the noise of estimates.
        noise_criterion: Which channels stay where a layer separates the classes no better than
            labels dealt out at random; a criterion of weights, such as ``GroupNorm``. Such a
            layer shrinks as the others do on average. None: its clusters choose all the same.
        latency_target: Fraction of the dense network's time that remains, below 1, or milliseconds
            (1 and more), with ``mac_target=None``: ONNX Runtime times the kernels of the network
            at many widths before training, widths are chosen by that table, and those found are
            measured and corrected (``pip install 'lightning-prune[onnx]'``); None: MACs decide.
        latency_table: File of a table that was measured on the machine that the network is for
            (``python -m lightning_prune latency``); None: this machine is measured, one thread.

    Raises:
        ValueError: an argument is out of range; before training: an unknown layer, an unreachable
            MAC target, a schedule that ends after the last epoch, an unsupported strategy.

    Source: Levin and Singer, 2024, arXiv 2309.02272; and CoSeP, 2025, arXiv 2505.13225.
    """

    @validated
    def __init__(
        self,
        start_epoch: Epoch = 0,
        mac_target: MacTarget = 0.5,
        keep_range: KeepRange = (0.25, 0.75),
        round_to: Count = 8,
        fast_widths: FastWidths | None = FAST_WIDTHS,
        layers: LayerChoice = None,
        criterion: Criterion | None = None,
        clusterer: ChannelClusterer | None = None,
        layers_per_step: OptionalCount = 10,
        epochs_per_step: Count = 1,
        hold_epochs: HoldEpochs = 1,
        images: OptionalCount = 256,
        recalibrate_images: TrainingImages = 64,
        compensate_images: TrainingImages = 64,
        matching: Matching = "detected",
        background: Background = "auto",
        dry_run: bool = False,
        dense_checkpoint: str | None = None,
        seed: int = 0,
        norms: Norms = "exact",
        attention: Attention = "heads",
        count: CountRule = "knee",
        noise_criterion: Criterion | None = None,
        latency_target: LatencyTarget = None,
        latency_table: str | None = None,
    ) -> None:
        if noise_criterion is not None:
            where = "a noise_criterion does without, as it chooses by weights"
            unmet = why_unmet(noise_criterion, frozenset(), where)
            if unmet is not None:
                raise ValueError(f"noise_criterion: {unmet}")
        super().__init__(
            mac_target,
            layers,
            criterion or Separability(),
            Images(images, compensate_images, recalibrate_images, recalibrate_images),
            Observation(images, matching, background, seed),
            dense_checkpoint,
            norms,
            attention,
            latency_target,
            latency_table,
        )
        self.schedule: StepSchedule = StepSchedule(
            start_epoch, layers_per_step, epochs_per_step, hold_epochs
        )
        self.keep_range = keep_range
        self.round_to = round_to
        self.fast_widths = fast_widths
        self.clusterer = clusterer or ChannelClusterer()
        self.dry_run = dry_run
        self.count: CountRule = count
        self.noise_criterion = noise_criterion
        self.clusterings: dict[str, ChannelClustering] = {}
        self.records: dict[str, DecisionRecord] = {}

    @property
    def decisions(self) -> Sequence[GroupDecision]:
        """What has been decided for each group so far; stays after the cut."""
        return self._state.decisions

    # --- hooks ------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hold a resumed run's masks, or print the dry run and stop."""
        if not self.dry_run:
            super().on_train_start(trainer, pl_module)
            return
        run = self._prepare(trainer, pl_module)
        if run is not None:
            decisions = dry_run(run)
            # Printed, not logged: it is what was asked for, whatever the log level.
            rank_zero_only(print)(dry_run_text(decisions, run.policy.macs))
            stop_before_training(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mask what is due at this epoch; idempotent."""
        if not self.dry_run:
            super().on_train_epoch_start(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn where a run ends without a mask or a cut."""
        super().on_train_end(trainer, pl_module)
        failed = self._state.failed_epoch
        if failed is not None and not self.finished and not self.is_cut:
            rank_zero_warn(
                f"training ends before all channels could be chosen and cut: in epoch {failed + 1} "
                "activations or importances were not finite (warned of then), and "
                f"{len(self.decisions)} groups are decided; train for more epochs"
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state_dict)
        self.clusterings, self.records = {}, {}

    def _epochs(self, groups: int) -> tuple[int, int, int]:
        cut = self.schedule.cut_epoch(max(groups, 1))
        return self.schedule.start_epoch, cut - self.schedule.hold_epochs, cut

    def _log_progress(self, before: MaskState, after: MaskState) -> None:
        if after.widths is not None and before.widths is None and self._run is not None:
            macs = self._run.policy.macs
            fraction = macs.remaining(after.widths) / macs.total
            target = masks_goal(self.mac_target, self.latency_target)
            rank_zero_info(
                f"Planned widths of {len(after.widths)} groups leave {fraction:.1%} of the MACs"
                f"{measured_words(after)} (target: {target})."
            )
        warn_of_decisions(after.decisions[len(before.decisions) :])

    # --- preparation ------------------------------------------------------------------------

    def _begin(
        self,
        front: TrainerFrontEnd,
        groups: ChannelGroups,
        names: tuple[str, ...],
        macs: MacModel,
        latency: LatencyAim | None,
    ) -> Masking[SequentialPolicy]:
        limits = self.keep_range, self.round_to, self.fast_widths
        reasons = {name: why_hidden(front.model, groups[name]) for name in names}
        hidden = {name: why for name, why in reasons.items() if why is not None}
        selection = SequentialSelection(
            groups,
            names,
            self.clusterer,
            self.criterion,
            *limits,
            hidden,
            self.count,
            self.noise_criterion,
        )
        target = self.mac_target if latency is None else latency.fraction
        cost = macs if latency is None else latency.model
        selection.check(front.model, cost, target)
        nothing = selection.why_nothing()
        if nothing is not None:
            rank_zero_warn(
                f"SequentialActivationMasker has no effect: {nothing}; lower round_to or the first "
                "bound of keep_range, or select wider layers"
            )
        if not self.dry_run:
            self._check_schedule(front.trainer, len(names))
        policy = SequentialPolicy(
            front.model,
            selection,
            macs,
            target,
            front.progress,
            self.clusterings,
            self.records,
            None if latency is None else latency.model,
            None if latency is None else latency.measure,
        )
        return Masking(front, policy, GroupSteps(self.schedule, names), self._images)

    def _check_schedule(self, trainer: pl.Trainer, groups: int) -> None:
        last = last_epoch(trainer, self.schedule.start_epoch, "nothing will be pruned")
        if last is None:
            return
        contradiction = self.schedule.contradiction(last, groups)
        if contradiction is not None:
            raise ValueError(contradiction)
