"""The mask stage of weight-based pruning: more and more channels, until a MAC target is met."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_prune.callbacks._arguments import check_counts, check_fraction
from lightning_prune.callbacks._gradients import informed
from lightning_prune.callbacks._observation import compensate_readers, recalibrate
from lightning_prune.callbacks._schedule import last_epoch, refuse_late_start
from lightning_prune.callbacks.masking_stage import MaskingStage
from lightning_prune.callbacks.trainer.averages import restart_averages
from lightning_prune.functional.ratio import RatioSchedule
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.criterion import Criterion
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.layers.layer_rule import LayerRule
from lightning_prune.policies.selection.fast_widths import FAST_WIDTHS, FastWidths
from lightning_prune.policies.selection.ratio_selection import (
    Ranking,
    RatioSelection,
    check_selection,
)
from lightning_prune.policies.selection.sequential import GroupDecision


class ChannelMasker(MaskingStage[RatioSelection]):
    """Mask the least important channels of the whole model, a larger share at every step.

    At the scheduled epochs ``start_epoch``, ``start_epoch + epoch_rate``, ... < ``end_epoch`` the
    ratio of masked channels rises by equal steps to ``pruning_ratio``; as soon as the model that
    remains meets ``mac_target``, it stops there. Masked channels are held at zero while training
    goes on, until a ``PhysicalPruner`` cuts exactly those. Logged at every epoch: the schedule's
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
        max_pruning_ratio: Largest fraction of a layer's channels that is removed, in (0, 1].
        round_to: The number of channels that stay in a layer is a multiple of it.
        ranking: ``global``: one ranking over all groups; ``local``: the same ratio in every group;
            ``isomorphic``: one ranking per set of groups of equal structure.
        fast_widths: Moves widths a little from what the ranking gives, at the same MACs, to those
            that take least time on the target; None: they stay.
        layers: Names or patterns of the layers to prune, or a rule such as ``WidestLayers``;
            None: all prunable layers.
        criterion: How important a channel is; None: ``GroupNorm``.
        hold_epochs: Epochs of training with all masks before the cut; 0: cut where the last mask
            falls (with ``start_epoch=0``: before the first epoch).
        recalibrate_images: Training images from which norm statistics are estimated anew after
            each step; 0: never.
        compensate_images: Training images from which the layers that read masked channels learn,
            by least squares, to predict those from the channels that stay; 0: never. It needs
            ``recalibrate_images``; averaged copies start anew at each step.
        gradient_images: Training images whose loss is differentiated, for criteria that use
            gradients (``Taylor``, ``Fisher``).
        dense_checkpoint: Where the dense model is saved before the first mask, its weights as they
            are validated (averaged, if they are); None: nowhere.

    Raises:
        ValueError: an argument is out of range; before training: an unknown layer, an unreachable
            MAC target, a schedule that leaves no epoch after the cut, an unsupported strategy.

    Source: Fang et al., 2023, DepGraph: Towards Any Structural Pruning, arXiv 2301.12900.
    """

    def __init__(
        self,
        start_epoch: int = 0,
        end_epoch: int = 10,
        epoch_rate: int = 1,
        pruning_ratio: float = 1.0,
        mac_target: float | None = 0.5,
        max_pruning_ratio: float = 0.9,
        round_to: int = 8,
        ranking: Ranking = "local",
        fast_widths: FastWidths | None = FAST_WIDTHS,
        layers: list[str] | LayerRule | None = None,
        criterion: Criterion | None = None,
        hold_epochs: int = 1,
        recalibrate_images: int = 64,
        compensate_images: int = 64,
        gradient_images: int = 256,
        dense_checkpoint: str | None = None,
    ) -> None:
        check_counts(
            hold_epochs=(hold_epochs, 0),
            recalibrate_images=(recalibrate_images, 0),
            compensate_images=(compensate_images, 0),
            gradient_images=(gradient_images, 1),
        )
        wanted = "the fraction of the channels that the last step removes"
        check_fraction(wanted, up_to_one=True, pruning_ratio=pruning_ratio)
        check_selection(ranking, max_pruning_ratio, round_to)
        if compensate_images and not recalibrate_images:
            raise ValueError(
                f"compensate_images={compensate_images} shifts what norms see: set "
                "recalibrate_images too, for example to 64"
            )
        super().__init__(
            mac_target, layers, criterion or GroupNorm(), recalibrate_images, dense_checkpoint
        )
        self.schedule = RatioSchedule(start_epoch, end_epoch, epoch_rate, pruning_ratio)
        self.max_pruning_ratio = max_pruning_ratio
        self.round_to = round_to
        self.ranking: Ranking = ranking
        self.fast_widths = fast_widths
        self.hold_epochs = hold_epochs
        self.compensate_images = compensate_images
        self.gradient_images = gradient_images

        self._held = PruningPlan()
        self._ratio, self._removed = 0.0, 0.0
        self._share = 1.0
        self._step_epoch: int | None = None
        self._met = False
        self._freed: list[str] = []

    # --- what other stages read -------------------------------------------------------------

    @property
    def plan(self) -> PruningPlan:
        """What is held at zero: empty before the first step and after the cut."""
        return PruningPlan() if self._cut else self._held

    @property
    def decisions(self) -> list[GroupDecision]:
        """What has been decided for each group so far, for the report; stays after the cut."""
        return [self._decision(name) for name in self._held.keep]

    def _decision(self, name: str) -> GroupDecision:
        keep, channels = self._held.keep[name], self._held.channels[name]
        if len(keep) == channels:
            why = "none of its blocks of channels was due at this ratio"
            return GroupDecision(name, keep, channels, None, "none", "left", why)
        least = max(self.round_to, (1 - self.max_pruning_ratio) * channels)
        bound = "mac_target" if self._met else "ratio"
        if len(keep) - self.round_to < least:
            bound = "max_pruning_ratio"
        return GroupDecision(name, keep, channels, None, bound, "pruned", "")

    # --- hooks ------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up a resumed run's masks."""
        self._prepare(trainer, pl_module)
        if self.plan:
            self._hold(trainer, pl_module)
        elif (
            self._step_epoch is None
            and self._skipped is None
            and trainer.current_epoch >= self.schedule.end_epoch
        ):
            refuse_late_start(trainer, f"before epoch {self.schedule.end_epoch + 1}")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mask what is due at this epoch; idempotent."""
        if self._cut or self.finished or self._selection is None:
            return
        epoch = trainer.current_epoch
        if self._is_due(epoch) and not self._met and self._selection.names:
            self._step(trainer, pl_module, epoch)
        over = self._is_over() or self._met or not self._selection.names
        if self._step_epoch is None or not over:
            return
        self.finished = epoch >= self._step_epoch + self.hold_epochs
        if self.finished:
            self._warn_of_the_end(self._selection)

    def _is_due(self, epoch: int) -> bool:
        if epoch in (self._step_epoch, self._skipped):
            return False
        # Where the last step could not be decided, every further epoch tries again.
        late = self._skipped is not None and epoch > self.schedule.epochs[-1]
        return self.schedule.is_scheduled(epoch) or (late and not self._is_over())

    def _is_over(self) -> bool:
        return self._step_epoch is not None and self._step_epoch >= self.schedule.epochs[-1]

    def _warn_of_the_end(self, selection: RatioSelection) -> None:
        if self.plan and self.mac_target is not None and not self._met:
            rank_zero_warn(
                f"the schedule is over with the MAC target unmet: {self._share:.1%} of the dense "
                f"MACs remain (target {self.mac_target:.1%}) with {self._removed:.0%} of the "
                "channels masked; that is what is cut. Raise pruning_ratio or max_pruning_ratio, "
                "lower round_to, or select more layers"
            )
        elif not self.plan and selection.names and selection.why_nothing() is None:
            rank_zero_warn(
                f"ChannelMasker has no effect: pruning_ratio={self.schedule.final_ratio} removes "
                f"no whole block of round_to={self.round_to} channels from any layer; raise "
                "pruning_ratio or lower round_to"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log how far pruning has come, for the epoch that ends."""
        masked = sum(len(self._held.removed(name)) for name in self._held.keep)
        values = {"ratio": self._ratio, "macs": self._share, "masked_channels": float(masked)}
        for name, value in values.items():
            pl_module.log(f"pruning/{name}", value, on_step=False, on_epoch=True, batch_size=1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say where a run ends without a mask or a cut."""
        super().on_train_end(trainer, pl_module)
        if self._step_epoch is None and self._skipped is not None:
            rank_zero_warn(
                "ChannelMasker has no effect: at no step was there a finite importance for every "
                "channel; the warnings before say which"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return plan and progress as plain data."""
        return super().state_dict() | {
            "plan": self._held.state_dict(),
            "ratio": self._ratio,
            "removed": self._removed,
            "share": self._share,
            "step_epoch": self._step_epoch,
            "met": self._met,
            "freed": list(self._freed),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up plan and progress."""
        super().load_state_dict(state_dict)
        self._held = PruningPlan.from_state_dict(state_dict["plan"])
        self._ratio = state_dict["ratio"]
        self._removed = state_dict["removed"]
        self._share = state_dict["share"]
        self._step_epoch = state_dict["step_epoch"]
        self._met = state_dict["met"]
        self._freed = list(state_dict["freed"])

    # --- preparation ------------------------------------------------------------------------

    def _choose_among(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        groups: ChannelGroups,
        names: tuple[str, ...],
        macs: MacModel,
    ) -> RatioSelection:
        selection = self._without_freed(groups, names, macs)
        if not self._freed:
            selection.check(pl_module, self.mac_target)
            nothing = selection.why_nothing()
            if nothing is not None:
                rank_zero_warn(
                    f"ChannelMasker has no effect: {nothing}; lower round_to, raise "
                    "max_pruning_ratio, or select wider layers"
                )
        self._check_schedule(trainer)
        return selection

    def _without_freed(
        self, groups: ChannelGroups, names: tuple[str, ...], macs: MacModel
    ) -> RatioSelection:
        names = tuple(name for name in names if name not in self._freed)
        limits = self.ranking, self.max_pruning_ratio, self.round_to, self.fast_widths
        return RatioSelection(groups, names, macs, self.criterion, *limits)

    def _check_schedule(self, trainer: pl.Trainer) -> None:
        start = self.schedule.start_epoch
        last = last_epoch(trainer, start, "nothing will be pruned")
        if last is None:
            return
        latest = self.schedule.epochs[-1] + self.hold_epochs
        if latest < last:
            return
        cut = (
            f"the last step falls on epoch {self.schedule.epochs[-1] + 1} and the cut "
            f"hold_epochs={self.hold_epochs} later, on epoch {latest + 1}, but max_epochs={last}"
        )
        if self.mac_target is None or start + self.hold_epochs >= last:
            raise ValueError(f"{cut}: lower end_epoch or train longer, so that the cut is trained")
        rank_zero_warn(
            f"{cut}: unless mac_target={self.mac_target} is met at the start of epoch "
            f"{last - self.hold_epochs} or before, nothing is cut"
        )

    # --- decisions --------------------------------------------------------------------------

    def _step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        if self._step_epoch is None:
            self._save_dense(trainer)
        assert self._selection is not None
        groups, names, held = self._selection.groups, self._selection.names, self._held
        if self.mac_target is not None and self._share <= self.mac_target:
            rank_zero_warn(
                f"mac_target={self.mac_target} (fraction of the dense MACs that remains) is met "
                f"already: the masks leave {self._share:.1%}, and no further channel is masked; "
                "lower mac_target to prune more"
            )
        choose = partial(
            self._selection.select, pl_module, self.schedule.ratio(epoch), self.mac_target, held
        )
        with informed(trainer, pl_module, self.criterion, groups, names, self.gradient_images):
            step = self._decided(trainer, choose)
        if step is None:
            return
        if self.compensate_images:
            images = self.compensate_images
            compensate_readers(trainer, pl_module, groups, step.plan, held, images)
        self._held, self._share, self._step_epoch = step.plan, step.share, epoch
        self._ratio, self._removed = step.ratio, step.removed
        self._met = self.mac_target is not None and step.share <= self.mac_target
        self._hold(trainer, pl_module)
        if self.recalibrate_images:
            recalibrate(trainer, pl_module, self.recalibrate_images)
        if self.compensate_images:
            restart_averages(trainer, pl_module)
        rank_zero_info(
            f"Epoch {epoch + 1}: {step.removed:.1%} of the channels masked, {step.share:.1%} of "
            "the MACs remain."
        )

    def _forget(self, names: Iterable[str]) -> None:
        assert self._selection is not None
        assert self._macs is not None
        if self.compensate_images:
            rank_zero_warn(
                "the layers that read the freed channels keep what they had taken over from them "
                "(compensate_images): train on, or start from dense_checkpoint"
            )
        self._freed += names
        keep = {name: k for name, k in self._held.keep.items() if name not in self._freed}
        self._held = PruningPlan(keep, {name: self._held.channels[name] for name in keep})
        groups, names = self._selection.groups, self._selection.names
        self._selection = self._without_freed(groups, names, self._macs)
        self._share = self._macs.remaining(self._held.widths()) / self._macs.total
        self._met = self.mac_target is not None and self._share <= self.mac_target
