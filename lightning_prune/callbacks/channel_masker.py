"""The mask stage of weight-based pruning: more and more channels, until a MAC target is met."""

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_prune.arguments import (
    Count,
    Epoch,
    HoldEpochs,
    LatencyTarget,
    MacTarget,
    PruningRatio,
    TrainingImages,
)
from lightning_prune.callbacks._calendar import masks_goal
from lightning_prune.callbacks._front_end import TrainerFrontEnd
from lightning_prune.callbacks._latency import LatencyAim
from lightning_prune.callbacks._observation import Observation
from lightning_prune.callbacks._schedule import last_epoch, refuse_late_start
from lightning_prune.callbacks.masking_stage import MaskingStage
from lightning_prune.engine.mask_state import MaskState, measured_words
from lightning_prune.engine.masking import Images, Masking
from lightning_prune.engine.phase import Phase
from lightning_prune.engine.ratio_policy import RatioPolicy, ratio_decisions
from lightning_prune.engine.steps import RatioSteps
from lightning_prune.functional.ratio import RatioSchedule
from lightning_prune.graph.group import Attention, ChannelGroups, Norms
from lightning_prune.graph.macs import MacModel
from lightning_prune.policies.criteria.criterion import Criterion
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.layers.layer_rule import LayerChoice
from lightning_prune.policies.selection.decision_record import DecisionRecord
from lightning_prune.policies.selection.fast_widths import FAST_WIDTHS, FastWidths
from lightning_prune.policies.selection.ranking import Ranking
from lightning_prune.policies.selection.ratio_selection import RatioSelection, SmallestKept
from lightning_prune.policies.selection.sequential import GroupDecision
from lightning_prune.validation import validated


class ChannelMasker(MaskingStage[RatioPolicy]):
    """Mask the least important channels of the whole model, a larger share at every step.

    At the scheduled epochs ``start_epoch``, ``start_epoch + epoch_rate``, ... < ``end_epoch`` the
    ratio of masked channels rises by equal steps to ``pruning_ratio``; as soon as the model that
    remains meets ``mac_target``, it stops there. Masked channels are held at zero while training
    continues, until a ``PhysicalPruner`` cuts exactly those. Logged at every epoch: the schedule's
    ratio at the latest step (``pruning/ratio``), the fraction of the dense MACs that remains
    (``pruning/macs``) and the number of masked channels (``pruning/masked_channels``); after the
    cut they stay as they were.

    Args:
        start_epoch: First scheduled epoch (0-based).
        end_epoch: Epoch before which the schedule ends; ``start_epoch + 1``: one step, one-shot.
        epoch_rate: Epochs from one step to the next.
        pruning_ratio: Fraction of the channels that the last step removes, in (0, 1]; with a
            ``mac_target`` leave it at 1: the schedule stops at the target.
        mac_target: Fraction of the dense model's MACs that remains, in (0, 1), met from below;
            None: the schedule runs to its end.
        keep_range: Smallest fraction of a layer's channels that stays, in [0, 1), and 1.
        round_to: The number of channels that stay in a layer is a multiple of it.
        ranking: ``global``: one ranking over all groups; ``local``: the same ratio in every group;
            ``isomorphic``: one ranking per set of groups of equal structure; ``measured``: as many
            MACs as with ``local``, at the widths whose loss is least once consumers are refitted.
        fast_widths: Moves widths a little from what the ranking gives, at the same MACs, to those
            that take least time on the target; None: they stay.
        layers: Names or patterns of the layers to prune, or a rule such as ``WidestLayers``;
            None: all prunable layers.
        criterion: How important a channel is; None: ``GroupNorm``.
        hold_epochs: Epochs of training with all masks before the cut; 0: cut where the last mask
            falls (with ``start_epoch=0``: before the first epoch).
        recalibrate_images: Training images from which norm statistics are estimated again at
            each step: after it, or before layers are refitted; 0: never.
        compensate_images: Training images from which, after each step, every layer behind a mask
            is fitted by least squares to what the model gave before it, front to back, norms
            included (``walked_refit``); 0: never. Averaged copies start again at each step.
        gradient_images: Training images from which criteria get what they need: gradients of the
            loss (``Taylor``, ``Fisher``), activations (``APoZ``, ``HRank``, ``SNP``,
            ``Separability``), or the losses of ``Reconstruction`` and ``ranking="measured"``.
        dense_checkpoint: Where the dense model is saved before the first mask, its weights as they
            are validated (averaged, if they are); None: nowhere.
        norms: ``exact``: layer, group and RMS norms count channels that are cut as zeros, so that
            the cut changes no output; ``plain``: they take statistics of the channels left, and
            the log says by how much outputs differ.
        attention: What of attention goes: whole ``heads``, the same channels of the ``width`` of
            every head, or ``both``.
        latency_target: Fraction of the dense network's time that remains, below 1, or milliseconds
            (1 and more), with ``mac_target=None``: ONNX Runtime times the kernels of the network
            at many widths before training, widths are chosen by that table, and those found are
            measured and corrected (``pip install 'lightning-prune[onnx]'``); None: MACs decide.
        latency_table: File of a table that was measured on the machine that the network is for
            (``python -m lightning_prune latency``); None: this machine is measured, one thread.

    Raises:
        ValueError: an argument is out of range; before training: an unknown layer, an unreachable
            MAC target, a schedule that leaves no epoch after the cut, an unsupported strategy.

    Source: Fang et al., 2023, DepGraph: Towards Any Structural Pruning, arXiv 2301.12900.
    """

    @validated
    def __init__(
        self,
        start_epoch: Epoch = 0,
        end_epoch: Count = 10,
        epoch_rate: Count = 1,
        pruning_ratio: PruningRatio = 1.0,
        mac_target: MacTarget = 0.5,
        keep_range: SmallestKept = (0.1, 1.0),
        round_to: Count = 8,
        ranking: Ranking = "local",
        fast_widths: FastWidths | None = FAST_WIDTHS,
        layers: LayerChoice = None,
        criterion: Criterion | None = None,
        hold_epochs: HoldEpochs = 1,
        recalibrate_images: TrainingImages = 64,
        compensate_images: TrainingImages = 64,
        gradient_images: Count = 256,
        dense_checkpoint: str | None = None,
        norms: Norms = "exact",
        attention: Attention = "heads",
        latency_target: LatencyTarget = None,
        latency_table: str | None = None,
    ) -> None:
        self.keep_range: tuple[float, float] = (float(keep_range[0]), float(keep_range[1]))
        super().__init__(
            mac_target,
            layers,
            criterion or GroupNorm(),
            Images(gradient_images, compensate_images, recalibrate_images),
            Observation(gradient_images),
            dense_checkpoint,
            norms,
            attention,
            latency_target,
            latency_table,
        )
        self.schedule: RatioSchedule = RatioSchedule(
            start_epoch, end_epoch, epoch_rate, pruning_ratio
        )
        self.round_to = round_to
        self.ranking: Ranking = ranking
        self.fast_widths = fast_widths
        self.hold_epochs = hold_epochs
        self.records: dict[str, DecisionRecord] = {}

    @property
    def decisions(self) -> list[GroupDecision]:
        """What has been decided for each group so far, for the report; stays after the cut."""
        return ratio_decisions(self._state, self.keep_range, self.round_to)

    # --- hooks ------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hold a resumed run's masks; refuse a schedule that is over before the first mask."""
        super().on_train_start(trainer, pl_module)
        state, target = self._state, self.mac_target
        if state.phase is Phase.DENSE:
            if state.failed_epoch is None and trainer.current_epoch >= self.schedule.end_epoch:
                refuse_late_start(trainer, f"before epoch {self.schedule.end_epoch + 1}")
        elif self.plan and target is not None and state.macs_fraction <= target and not state.met:
            rank_zero_warn(
                f"mac_target={target} (fraction of the dense MACs that remains) is met already: "
                f"the masks leave {state.macs_fraction:.1%}, and no further channel is masked; "
                "lower mac_target to prune more"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log how far pruning has come, for the epoch that ends."""
        state = self._state
        masked = sum(len(state.plan.removed(name)) for name in state.plan.keep)
        values = {"ratio": state.ratio, "macs": state.macs_fraction, "masked_channels": masked}
        for name, value in values.items():
            own = float(value)
            pl_module.log(f"pruning/{name}", own, on_step=False, on_epoch=True, batch_size=1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn where a run ends without a mask or a cut."""
        super().on_train_end(trainer, pl_module)
        if self._state.step_epoch is None and self._state.failed_epoch is not None:
            rank_zero_warn(
                "ChannelMasker has no effect: at no step was there a finite importance for every "
                "channel; the warnings before say which"
            )

    def _epochs(self, groups: int) -> tuple[int, int, int]:
        first, last = self.schedule.epochs[0], self.schedule.epochs[-1]
        return first, last, last + self.hold_epochs

    def _log_progress(self, before: MaskState, after: MaskState) -> None:
        if after.step_epoch is not None and after.step_epoch != before.step_epoch:
            rank_zero_info(
                f"Epoch {after.step_epoch + 1}: {after.removed:.1%} of the channels masked, "
                f"{after.macs_fraction:.1%} of the MACs remain{measured_words(after)}."
            )
        if before.finished or not after.finished or self._run is None:
            return
        target = masks_goal(self.mac_target, self.latency_target)
        if self.plan and target and not after.met:
            which, aim = "latency", target
            if self.mac_target is not None:
                which, aim = "MAC", f"{self.mac_target:.1%}"
            rank_zero_warn(
                f"the schedule is over with the {which} target unmet: "
                f"{after.macs_fraction:.1%} of the dense MACs remain (target {aim}) with "
                f"{after.removed:.0%} of the channels masked; that is what is cut. Raise "
                "pruning_ratio, lower keep_range or round_to, or select more layers"
            )
        elif not self.plan and self._run.policy.why_nothing(after) is None:
            rank_zero_warn(
                f"ChannelMasker has no effect: pruning_ratio={self.schedule.final_ratio} removes "
                f"no whole block of round_to={self.round_to} channels from any layer; raise "
                "pruning_ratio or lower round_to"
            )

    # --- preparation ------------------------------------------------------------------------

    def _begin(
        self,
        front: TrainerFrontEnd,
        groups: ChannelGroups,
        names: tuple[str, ...],
        macs: MacModel,
        latency: LatencyAim | None,
    ) -> Masking[RatioPolicy]:
        limits = self.ranking, self.keep_range, self.round_to, self.fast_widths
        model = None if latency is None else latency.model
        selection = RatioSelection(groups, names, macs, self.criterion, *limits, model)
        target = self.mac_target if latency is None else latency.fraction
        measure = None if latency is None else latency.measure
        policy = RatioPolicy(front.model, selection, target, self.records, measure)
        if not self._state.freed:
            selection.check(front.model, target)
            nothing = selection.why_nothing()
            if nothing is not None:
                rank_zero_warn(
                    f"ChannelMasker has no effect: {nothing}; lower round_to or "
                    "keep_range, or select wider layers"
                )
        steps = RatioSteps(self.schedule, names, self.hold_epochs)
        last = last_epoch(front.trainer, self.schedule.start_epoch, "nothing will be pruned")
        if last is not None:
            self._check_schedule(steps, last)
        return Masking(front, policy, steps, self._images)

    def _check_schedule(self, steps: RatioSteps, last: int) -> None:
        cut = steps.late_cut(last)
        if cut is None:
            return
        if self.mac_target is None or self.schedule.start_epoch + self.hold_epochs >= last:
            raise ValueError(f"{cut}: lower end_epoch or train longer, so that the cut is trained")
        rank_zero_warn(
            f"{cut}: unless mac_target={self.mac_target} is met at the start of epoch "
            f"{last - self.hold_epochs} or before, nothing is cut"
        )
