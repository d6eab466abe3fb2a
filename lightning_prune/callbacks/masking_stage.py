"""What all stages share that hold channels at zero."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Generic

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.callbacks._calendar import masks_goal, masks_in_words
from lightning_prune.callbacks._data import example_input
from lightning_prune.callbacks._front_end import TrainerFrontEnd
from lightning_prune.callbacks._latency import LatencyAim, LatencyGoal
from lightning_prune.callbacks._observation import Observation
from lightning_prune.callbacks._prunable_groups import prunable_groups
from lightning_prune.callbacks._schedule import warn_of_nothing_masked
from lightning_prune.callbacks.holding_stage import HoldingStage
from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.engine.calibration import reestimate_norms
from lightning_prune.engine.mask_state import MaskState
from lightning_prune.engine.masking import Images, Masking, PolicyT
from lightning_prune.engine.phase import Phase
from lightning_prune.functional.ratio import RatioSchedule
from lightning_prune.graph.group import Attention, ChannelGroups, Norms
from lightning_prune.graph.macs import MacModel
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.criterion import Criterion
from lightning_prune.policies.layers.layer_rule import LayerChoice, select_groups
from lightning_prune.policies.selection.step_schedule import StepSchedule
from lightning_prune.surgery.cut import PrunedChannels


class MaskingStage(HoldingStage[Masking[PolicyT]], Generic[PolicyT]):
    """A stage with a plan: holds it at zero in the model and its averages until the cut.

    What is masked is remembered, in checkpoints too, so that ``unprune`` can bring it back.

    Args:
        mac_target: Fraction of the dense model's MACs that remains, in (0, 1); None: no target.
        layers: Names or patterns of the layers to prune, or a rule; None: all prunable layers.
        criterion: How important a channel is.
        images: From how many training images evidence, refits and norm statistics come.
        observation: How objects are observed.
        dense_checkpoint: Where the dense model is saved before the first mask; None: nowhere.
        norms: "exact": norms over cut channels count them as zeros; "plain": they do not.
        attention: Whether heads of attention, their width or both are groups.
        latency_target: Fraction of the dense time that remains, or milliseconds; None: no target.
        latency_table: File of a measured table; None: this machine is measured.

    Raises:
        ValueError: an argument is out of range, or there are two targets.
    """

    acts_from = "start_epoch"

    schedule: RatioSchedule | StepSchedule

    def __init__(
        self,
        mac_target: float | None,
        layers: LayerChoice,
        criterion: Criterion,
        images: Images,
        observation: Observation,
        dense_checkpoint: str | None,
        norms: Norms,
        attention: Attention,
        latency_target: float | None,
        latency_table: str | None,
    ) -> None:
        super().__init__()
        self.mac_target = mac_target
        self.layers = layers
        self.criterion = criterion
        self.dense_checkpoint = dense_checkpoint
        self.norms: Norms = norms
        self.attention: Attention = attention
        self.latency_target = latency_target
        self.latency_table = latency_table
        self._images = images
        self._observation = observation
        self._goal: LatencyGoal | None = None
        if latency_target is not None:
            self._goal = LatencyGoal(latency_target, latency_table, mac_target)
        elif latency_table is not None:
            raise ValueError(
                f"latency_table={latency_table!r} has no effect without a latency_target: set one "
                "(and mac_target=null), or leave the table out"
            )

    @property
    def plan(self) -> PruningPlan:
        """What is held at zero: empty before the first step and after the cut."""
        return self._state.masked

    @property
    def finished(self) -> bool:
        """Return whether the masks may be cut out."""
        return self._state.finished

    @property
    def groups(self) -> ChannelGroups | None:
        """Return the channel groups of the model, once training has started."""
        return None if self._run is None else self._run.policy.groups

    @property
    def macs_fraction(self) -> float | None:
        """Return the fraction of the dense MACs that its masks leave; None: nothing is masked."""
        if self._run is None or not self.plan:
            return None
        macs = self._run.policy.macs
        return macs.remaining(self.plan.widths()) / macs.total

    @property
    def is_cut(self) -> bool:
        """Return whether what was masked is cut."""
        return self._state.phase is Phase.CUT

    @abstractmethod
    def _begin(
        self,
        front: TrainerFrontEnd,
        groups: ChannelGroups,
        names: tuple[str, ...],
        macs: MacModel,
        latency: LatencyAim | None,
    ) -> Masking[PolicyT]:
        """Return what masks these groups, after all checks before training."""

    @abstractmethod
    def _epochs(self, groups: int) -> tuple[int, int, int]:
        """Return the epochs of the first mask, of the last of so many groups, and of the cut."""

    @abstractmethod
    def _log_progress(self, before: MaskState, after: MaskState) -> None:
        """Log what a step has come to, and how a schedule has ended."""

    def state_dict(self) -> dict[str, Any]:
        """Return how far masks have come, and the latency table of the run."""
        own = super().state_dict()
        return own if self._goal is None else own | {"latency_table": self._goal.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state_dict)
        if self._goal is not None:
            self._goal.load_state_dict(state_dict.get("latency_table"))

    def calendar(self, pl_module: pl.LightningModule, cuts: bool) -> str | None:
        """Return when channels are masked and cut, in words; None: they were cut."""
        if self.is_cut:  # a resumed run: how many groups there were is not known any more
            return None
        names = () if self.groups is None else select_groups(self.layers, pl_module, self.groups)
        target = masks_goal(self.mac_target, self.latency_target)
        return masks_in_words(self._epochs(len(names)), len(names), target, cuts)

    def doing(self, epoch: int) -> str | None:
        """Return what masks leave when an epoch ends, in words."""
        left = self.macs_fraction
        return None if left is None else f"mask to {left:.0%} of MACs"

    # --- hooks ------------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Resolve layers and check the schedule and the MAC target before the first batch."""
        if pl_module.example_input_array is not None:
            self._prepare(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hold a resumed run's masks."""
        run = self._prepare(trainer, pl_module)
        if run is not None and self.plan:
            self._state = run.hold(self._state)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mask what is due at this epoch; idempotent."""
        if self._run is not None:
            before, self._state = self._state, self._run.advance(self._state, trainer.current_epoch)
            self._log_progress(before, self._state)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn where a run ends before the first mask, or with masks that were not cut out."""
        if self.is_cut or self.finished or trainer.interrupted:
            return
        plan, state = self.plan, self._state
        if plan:
            removed = sum(len(plan.removed(name)) for name in plan.keep)
            rank_zero_warn(
                "training ends before the masks could be cut out: the model has its full width, "
                f"with {removed / sum(plan.channels.values()):.1%} of the channels of "
                f"{len(plan.keep)} groups held at zero. Train for more epochs, or lower end_epoch, "
                "start_epoch or hold_epochs"
            )
        elif state.phase is Phase.DENSE and state.failed_epoch is None:
            warn_of_nothing_masked(trainer, type(self).__name__, self.schedule.start_epoch)

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Drop the masks: the channels are gone."""
        self._let_go()
        self._state = replace(self._state, phase=Phase.CUT, originals=None)

    def unprune(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        names: Iterable[str] | None = None,
    ) -> None:
        """Lift masks before the cut: rows, norms and their statistics are what they were.

        The groups train freely from then on and are not masked again. Averaged copies get the
        same values. With ``recalibrate_images`` the norm statistics are estimated again afterwards.

        Args:
            trainer: The running Trainer.
            pl_module: Its module.
            names: Groups to free; None: all.

        Raises:
            KeyError: a group has no mask.
        """
        run = self._run
        if run is None or not run.live.plan.keep:
            rank_zero_warn(f"{type(self).__name__}.unprune has no effect: no channel is masked")
            return
        self._state = run.free(self._state, list(run.live.plan.keep if names is None else names))
        Pipeline.of(trainer).apply_masks()  # a mask that was lifted may overlap others
        if self._images.refit:
            rank_zero_warn(
                "the layers that read the freed channels keep what they had taken over from them "
                "(compensate_images): train on, or start from dense_checkpoint"
            )
        if self._images.norms:
            reestimate_norms(run.front, self._images.norms)

    # --- preparation ------------------------------------------------------------------------

    def _prepare(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> Masking[PolicyT] | None:
        if self.is_cut:
            return None
        name = type(self).__name__
        front = TrainerFrontEnd(trainer, pl_module, name, self._observation, self.dense_checkpoint)
        front.check_needs(self.criterion)
        example = example_input(trainer, pl_module)
        groups = prunable_groups(trainer, pl_module, example)
        if self._run is not None and self._run.policy.groups.keys() == groups.keys():
            return self._run
        self._check_held(groups)
        names = select_groups(self.layers, pl_module, groups)
        macs = MacModel.of(pl_module, groups, example)
        goal = self._goal
        latency = None if goal is None else goal.prepare(front, groups, names, macs, example)
        self._run = self._begin(front, groups, names, macs, latency)
        return self._run

    def _check_held(self, groups: ChannelGroups) -> None:
        """Refuse masks, of a resumed run, on groups that cannot be cut."""
        for name in self.plan.keep:
            if name not in groups:
                why = groups.refused.get(name, "the model has no such group")
                raise ValueError(
                    f"the resumed run masks group {name!r}, which cannot be cut ({why}): start "
                    "from the dense model, or leave the layer out of `layers`"
                )
