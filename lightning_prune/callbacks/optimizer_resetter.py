"""The optimizer reset stage: what the optimizer and the schedule do after a cut."""

from functools import partial
from typing import Annotated, Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import BaseFinetuning
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.annotations import Above, AtLeast, Between
from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.callbacks.trainer.optimizers import (
    clear_optimizers,
    rebuild_optimizers,
    remaining_steps,
    restart_schedules,
    steps_per_epoch,
)
from lightning_prune.functional.schedule import Decay, learning_rate_factor
from lightning_prune.runs.trainer.callbacks_of import callbacks_of
from lightning_prune.runs.trainer.fit_state import trains
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.surgery.optimizer import keep_groups
from lightning_prune.surgery.restarted_schedule import initial_rates
from lightning_prune.validation import validated

RestartAt = Literal["cut", "mask"]


class OptimizerResetter(PruningStage):
    """Clear the optimizer's statistics after a cut, and restart the learning rate.

    The cut itself keeps every surviving channel's momentum. This stage forgets it, and lets the
    recovery epochs begin at a useful learning rate: a schedule that has decayed to 1 % leaves
    nothing to recover with.

    Args:
        clear_statistics: Forget momentum and second moments.
        rebuild: Call ``configure_optimizers`` again instead (its own schedule starts again too).
        restart_lr: Replace the schedules by a warm-up and a decay over the remaining steps. A
            parameter group that joins later (``BackboneFinetuning``) starts at the rate that it is
            given and changes in proportion.
        restart_at: ``cut``, or ``mask``: already when the first channels are masked, so that the
            epochs between two steps of masking recover too; once either way.
        lr_scale: Peak learning rate as a multiple of the one the run started with (of a one-cycle
            schedule: its peak).
        warmup_epochs: Length of the warm-up in epochs, at most a third of the recovery.
        final_lr: Learning rate at the end as a fraction of the peak.
        decay: ``cosine``, ``linear`` or ``constant``.

    Raises:
        ValueError: an argument is out of range; before training: ``rebuild`` beside a callback that
            adds parameter groups.
    """

    acts_from = "masks"

    @validated
    def __init__(
        self,
        clear_statistics: bool = True,
        rebuild: bool = False,
        restart_lr: bool = True,
        restart_at: RestartAt = "mask",
        lr_scale: Annotated[float, Above(0, "a multiple of the first rate")] = 1.0,
        warmup_epochs: Annotated[float, AtLeast(0, "the length of the warm-up")] = 0.5,
        final_lr: Annotated[float, Between(0, 1, "a fraction of the peak")] = 0.01,
        decay: Decay = "cosine",
    ) -> None:
        self.clear_statistics = clear_statistics
        self.rebuild = rebuild
        self.restart_lr = restart_lr
        self.restart_at = restart_at
        self.lr_scale = lr_scale
        self.warmup_epochs = warmup_epochs
        self.final_lr = final_lr
        self.decay: Decay = decay
        self._restart: dict[str, Any] | None = None
        self._refused = False
        self._acted = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse what would lose parameter groups."""
        super().setup(trainer, pl_module, stage)
        thawing = [c for c in callbacks_of(trainer) if isinstance(c, BaseFinetuning)]
        if stage == "fit" and self.rebuild and thawing:
            raise ValueError(
                f"OptimizerResetter(rebuild=True) loses the parameter groups that "
                f"{type(thawing[0]).__name__} adds: set rebuild=False (clear_statistics=True "
                "forgets what the optimizer remembers as well)"
            )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put a resumed run's schedule in place before Lightning restores its position."""
        if not (self.clear_statistics or self.rebuild or self.restart_lr):
            rank_zero_warn(
                "OptimizerResetter has no effect: clear_statistics, rebuild and restart_lr are all "
                "false; set one of them or leave the callback out"
            )
        if self._restart is not None:
            # Where a file is resumed, Lightning restores the position afterwards.
            done = trainer.global_step - self._restart.get("step", trainer.global_step)
            self._install(trainer, self._restart, max(0, done))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Name what a resume has frozen again: Lightning thaws it at its own epoch only."""
        thawing = [c for c in callbacks_of(trainer) if isinstance(c, BaseFinetuning)]
        held = {
            id(p)
            for optimizer in trainer.optimizers
            for group in optimizer.param_groups
            for p in group["params"]
        }
        frozen = [
            n for n, p in pl_module.named_parameters() if id(p) in held and not p.requires_grad
        ]
        if trainer.global_step and thawing and frozen:
            name = type(thawing[0]).__name__
            rank_zero_warn(
                f"the optimizers hold {len(frozen)} parameters that are frozen ({frozen[0]}, ...) "
                f"and do not train: {name} freezes at every start, a resumed one too, and thaws at "
                f"its own epoch only. Call {name}.make_trainable on the thawed module in an "
                "on_fit_start of your own"
            )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restart the learning rate at the first mask, where that is wanted."""
        waiting = self.restart_at == "mask" and self._restart is None and not self._refused
        if self.restart_lr and waiting and Pipeline.of(trainer).is_masked:
            self._start(trainer, pl_module)

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Reset what was asked for."""
        self._acted = True
        if self.rebuild:
            self._rebuild(trainer)
        elif self.clear_statistics:
            clear_optimizers(trainer)
        running = self.restart_at == "mask" and self._restart is not None and not self.rebuild
        if self.restart_lr and not running and not self._refused:
            self._start(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn where there was nothing to reset."""
        if trains(trainer) and not self._acted and self._restart is None and not self._refused:
            rank_zero_warn(
                "OptimizerResetter has no effect: this run ended without a cut; see the warnings "
                "of the maskers, train for more epochs, or leave the callback out"
            )

    def _rebuild(self, trainer: pl.Trainer) -> None:
        before = list(trainer.optimizers)
        rebuild_optimizers(trainer)
        kept = sum(map(keep_groups, before, trainer.optimizers))
        if not kept:
            return
        if not self.restart_lr:  # its schedules know the groups of configure_optimizers only
            trainer.strategy.lr_scheduler_configs = []
        stopped = "" if self.restart_lr else "; its schedules do not know them and are left out"
        rank_zero_warn(
            f"configure_optimizers leaves out {kept} parameters that were trained (another "
            f"callback had added them): they keep groups of their own{stopped}"
        )

    def _forget_run(self) -> None:
        self._refused = False

    def _start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._refused = True
        if not pl_module.automatic_optimization:
            rank_zero_warn(
                "OptimizerResetter(restart_lr=True) has no effect under manual optimization: the "
                "module steps its own schedulers"
            )
            return
        remaining = remaining_steps(trainer)
        if remaining is None:
            rank_zero_warn(
                "OptimizerResetter(restart_lr=True) needs max_epochs (and a training loader with a "
                "length) or max_steps to know the recovery's length: the schedule is left as it is"
            )
            return
        self._refused = False
        rates = initial_rates(trainer.optimizers)
        warmup = round(self.warmup_epochs * steps_per_epoch(trainer))
        self._restart = {
            "rates": [[rate * self.lr_scale for rate in group] for group in rates],
            "warmup": min(warmup, remaining // 3),
            "total": remaining,
            "step": trainer.global_step,
        }
        self._install(trainer, self._restart)

    def _install(self, trainer: pl.Trainer, restart: dict[str, Any], done: int = 0) -> None:
        factor = partial(
            learning_rate_factor,
            total=restart["total"],
            warmup=restart["warmup"],
            final=self.final_lr,
            schedule=self.decay,
        )
        restart_schedules(trainer, restart["rates"], factor, done)

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule that was restarted, if one was, and whether a cut was met."""
        return {"restart": self._restart, "acted": self._acted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the schedule that was restarted."""
        self._restart = state_dict["restart"]
        # Checkpoints of earlier versions do not say.
        self._acted = state_dict.get("acted", self._restart is not None)
