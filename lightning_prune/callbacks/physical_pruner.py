"""The physical prune stage: cuts exactly what the maskers hold at zero."""

from functools import partial
from typing import Annotated, Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_prune.annotations import Above
from lightning_prune.arguments import TrainingImages
from lightning_prune.callbacks._data import example_input
from lightning_prune.callbacks._front_end import TrainerFrontEnd
from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.callbacks.trainer.averages import restart_averages
from lightning_prune.callbacks.trainer.comparisons import (
    has_plateaus,
    release_early_stopping,
    restart_comparisons,
    restart_plateaus,
    stopped_early,
    suspend_early_stopping,
)
from lightning_prune.callbacks.trainer.cut import cut_everywhere
from lightning_prune.callbacks.trainer.precision import forward_context
from lightning_prune.callbacks.trainer.strategy import rewrap
from lightning_prune.engine.calibration import reestimate_norms
from lightning_prune.engine.verified_cut import Verification, verified_cut
from lightning_prune.plan import PruningPlan
from lightning_prune.runs.finite_watch import check_weights
from lightning_prune.surgery.compare import noise_like
from lightning_prune.validation import validated


class PhysicalPruner(PruningStage):
    """Cut masked channels out of the model, its averages, its optimizers and DDP.

    It acts at the start of an epoch, as soon as every masker (a callback with ``plan`` and
    ``finished``) is finished: no gradient is half accumulated there, and the epoch's checkpoint
    and metric belong to the cut model. Afterwards ``on_channels_pruned(trainer, pl_module,
    pruned)`` is called on every callback and on the LightningModule where they define it.

    From the first mask to the cut ``EarlyStopping`` is suspended, and ``ReduceLROnPlateau`` does
    not run out of patience: a masked model is not compared with the dense one. Both begin again at
    the cut.

    Args:
        verify: Compare the eval output of the masked and the cut model on seeded noise; a
            difference above ``tolerance`` ends the run before a wrong model is trained on.
        tolerance: Largest difference allowed, as a fraction of the largest output; in half
            precision at least 8 units of rounding.
        recalibrate_images: Training images from which the norm statistics of the cut model are
            estimated again, before training continues; averaged copies get the same. 0: never.

    Raises:
        ValueError: the tolerance is not positive, or a negative number of images.
    """

    acts_from = "masks"

    @validated
    def __init__(
        self,
        verify: bool = True,
        tolerance: Annotated[float, Above(0, "the largest difference allowed")] = 1e-4,
        recalibrate_images: TrainingImages = 256,
    ) -> None:
        self.verify = verify
        self.tolerance = tolerance
        self.recalibrate_images = recalibrate_images
        self.done = False
        self._epoch: int | None = None

    def doing(self, epoch: int) -> str | None:
        """Return whether channels were cut in an epoch, in a word."""
        return "cut" if epoch == self._epoch else None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn where nothing will ever be cut."""
        if not Pipeline.of(trainer).maskers:
            rank_zero_warn(
                "PhysicalPruner has nothing to cut: no callback in the list holds a plan; add a "
                "masker such as SequentialActivationMasker"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Suspend early stopping from the first mask to the cut."""
        suspend_early_stopping(trainer, partial(self._is_waiting, trainer))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Cut as soon as every masker is finished; once."""
        pipeline = Pipeline.of(trainer)
        if self.done or not pipeline.is_finished:
            return
        self.done, plan = True, pipeline.plan
        if plan:
            self._cut(trainer, pl_module, plan)
        else:
            rank_zero_warn("the maskers are finished but hold no channel at zero: nothing to cut")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep plateau schedulers, which step later, from running out of patience."""
        if has_plateaus(trainer) and self._is_waiting(trainer):
            restart_plateaus(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log where early stopping came before the first mask, and release it."""
        metric, pipeline = stopped_early(trainer), Pipeline.of(trainer)
        if metric is not None and pipeline.maskers and not (self.done or pipeline.is_masked):
            rank_zero_warn(
                f"EarlyStopping(monitor={metric!r}) ended the run in epoch "
                f"{trainer.current_epoch}, before the first channel was masked: nothing is "
                "pruned. Let pruning start earlier, raise `patience`, or set the Trainer's "
                "min_epochs to the epoch at which pruning starts plus 1"
            )
        release_early_stopping(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Release early stopping: the callback may be used in another fit."""
        release_early_stopping(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return whether the cut has happened, and in which epoch (0-based)."""
        return {"done": self.done, "epoch": self._epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore whether the cut has happened."""
        self.done = state_dict["done"]
        self._epoch = state_dict.get("epoch")  # files of earlier versions do not say

    def _is_waiting(self, trainer: pl.Trainer) -> bool:
        return not self.done and Pipeline.of(trainer).is_masked

    def _cut(self, trainer: pl.Trainer, pl_module: pl.LightningModule, plan: PruningPlan) -> None:
        check_weights(trainer, pl_module)
        pipeline = Pipeline.of(trainer)
        groups = pipeline.groups()
        pruned = verified_cut(
            pl_module,
            groups,
            plan,
            noise_like(example_input(trainer, pl_module)),
            Verification(self.verify, self.tolerance, partial(forward_context, trainer), True),
            cut=partial(cut_everywhere, trainer, pl_module, groups, plan),
            log=rank_zero_info,
        )
        self._epoch = trainer.current_epoch
        rewrap(trainer)
        if self.recalibrate_images:
            reestimate_norms(TrainerFrontEnd(trainer, pl_module), self.recalibrate_images)
            restart_averages(trainer, pl_module)
        removed = sum(plan.channels[n] - len(k) for n, k in plan.keep.items())
        rank_zero_info(
            f"Epoch {trainer.current_epoch + 1}: cut {removed} channels of {len(plan.keep)} groups."
        )
        pipeline.notify(pl_module, pruned)
        restart_comparisons(trainer)
