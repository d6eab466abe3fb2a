"""The physical prune stage: cuts exactly what the maskers hold at zero."""

import dataclasses
import functools
import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from lightning_prune.callbacks._arguments import check_counts
from lightning_prune.callbacks._data import example_input
from lightning_prune.callbacks._observation import recalibrate
from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.callbacks.trainer.averages import restart_averages
from lightning_prune.callbacks.trainer.comparisons import (
    restart_comparisons,
    restart_plateaus,
    stopped_early,
    suspend_comparisons,
)
from lightning_prune.callbacks.trainer.cut import cut_everywhere, maskers, tell
from lightning_prune.callbacks.trainer.precision import forward_context
from lightning_prune.callbacks.trainer.strategy import rewrap
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.trace import trace_groups
from lightning_prune.plan import PruningPlan
from lightning_prune.runs.finite_watch import check_weights
from lightning_prune.runs.trainer.fit_state import is_fitting
from lightning_prune.surgery.compare import noise_like
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.mask import ChannelMask
from lightning_prune.surgery.masked_outputs import CutDifference, MaskedOutputs


class PhysicalPruner(PruningStage):
    """Cut masked channels out of the model, its averages, its optimizers and DDP.

    It acts at the start of an epoch, as soon as every masker (a callback with ``plan`` and
    ``finished``) is finished: no gradient is half accumulated there, and the epoch's checkpoint
    and metric belong to the cut model. Afterwards ``on_channels_pruned(trainer, pl_module,
    pruned)`` is called on every callback and on the LightningModule where they define it.

    From the first mask to the cut ``EarlyStopping`` is suspended, and ``ReduceLROnPlateau`` does
    not run out of patience: a masked model is no rival of the dense one. Both begin anew at the
    cut.

    Args:
        verify: Compare the eval output of the masked and the cut model on seeded noise; a
            difference above ``tolerance`` ends the run before a wrong model is trained on.
        tolerance: Largest difference allowed, as a fraction of the largest output; in half
            precision at least 8 units of rounding.
        recalibrate_images: Training images from which the norm statistics of the cut model are
            estimated anew, before training goes on; averaged copies get the same. 0: never.

    Raises:
        ValueError: the tolerance is not positive, or a negative number of images.
    """

    def __init__(
        self, verify: bool = True, tolerance: float = 1e-4, recalibrate_images: int = 256
    ) -> None:
        if not 0 < tolerance < math.inf:
            raise ValueError(f"tolerance={tolerance}: pass a positive number, for example 1e-4")
        check_counts(recalibrate_images=(recalibrate_images, 0))
        self.verify = verify
        self.tolerance = tolerance
        self.recalibrate_images = recalibrate_images
        self.done = False
        self._masked = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn where nothing will ever be cut."""
        if not maskers(trainer):
            rank_zero_warn(
                "PhysicalPruner has nothing to cut: no callback in the list holds a plan; add a "
                "masker such as SequentialActivationMasker"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Suspend early stopping where a resumed run holds masks."""
        self._suspend(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Cut as soon as every masker is finished; once."""
        stages = maskers(trainer)
        if self.done or not stages or not all(masker.finished for masker in stages):
            self._suspend(trainer)
            return
        plan = functools.reduce(PruningPlan.merge, (masker.plan for masker in stages))
        self.done = True
        if not plan:
            rank_zero_warn("the maskers are finished but hold no channel at zero: nothing to cut")
            self._suspend(trainer)
            return
        self._cut(trainer, pl_module, plan)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep plateau schedulers that step after every batch from running out of patience."""
        if self._masked:
            restart_plateaus(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look again before early stopping does: a masker may stand behind in the list."""
        if is_fitting(trainer):
            self._suspend(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look again before early stopping and the schedulers do."""
        self._suspend(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say where early stopping came before the first mask, and let it go."""
        metric = stopped_early(trainer)
        stages = maskers(trainer)
        if metric is not None and stages and not (self.done or any(m.plan for m in stages)):
            rank_zero_warn(
                f"EarlyStopping(monitor={metric!r}) ended the run in epoch "
                f"{trainer.current_epoch}, before the first channel was masked: nothing is "
                "pruned. Let pruning start earlier, raise `patience`, or set the Trainer's "
                "min_epochs to the epoch at which pruning starts plus 1"
            )
        suspend_comparisons(trainer, False)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Let early stopping go: the callback may be used in another fit."""
        suspend_comparisons(trainer, False)

    def state_dict(self) -> dict[str, Any]:
        """Return whether the cut has happened."""
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up whether the cut has happened."""
        self.done = state_dict["done"]

    def _forget_run(self) -> None:
        self._masked = False

    def _suspend(self, trainer: pl.Trainer) -> None:
        self._masked = not self.done and any(masker.plan for masker in maskers(trainer))
        suspend_comparisons(trainer, self._masked)

    def _cut(self, trainer: pl.Trainer, pl_module: pl.LightningModule, plan: PruningPlan) -> None:
        check_weights(trainer, pl_module)
        example = noise_like(example_input(trainer, pl_module))
        # As they were tried and masked; a masker of another kind may not know them.
        known = (getattr(masker, "groups", None) for masker in maskers(trainer))
        groups = next((g for g in known if g is not None), None) or trace_groups(pl_module, example)
        self._assert_zero(pl_module, groups, plan)
        with forward_context(trainer):
            before = MaskedOutputs(pl_module, example, groups, plan) if self.verify else None
        masked = copy_module(pl_module)
        pruned = dataclasses.replace(
            cut_everywhere(trainer, pl_module, groups, plan), masked=masked
        )
        if before is not None:
            with forward_context(trainer):
                found = before.difference(pl_module)
            allowed = max(self.tolerance, before.allowed)
            if not found.surgery <= allowed:
                raise RuntimeError(
                    f"the cut model differs from the masked one by {found.surgery:.3g} of the "
                    f"largest output (allowed {allowed:.3g}): a layer treats its channels "
                    "in a way that the groups do not describe; leave it out of `layers` and "
                    "report the model. The last checkpoint holds the masked model."
                )
            if found.mixed_by:
                rank_zero_info(_say_mixed(found))
            pruned = dataclasses.replace(
                pruned, output_difference=found.whole, mixed_by=found.mixed_by
            )
        rewrap(trainer)
        if self.recalibrate_images:
            recalibrate(trainer, pl_module, self.recalibrate_images)
            restart_averages(trainer, pl_module)
        removed = sum(plan.channels[n] - len(k) for n, k in plan.keep.items())
        rank_zero_info(
            f"Epoch {trainer.current_epoch + 1}: cut {removed} channels of {len(plan.keep)} groups."
        )
        tell(trainer, pl_module, pruned)
        self._suspend(trainer)
        restart_comparisons(trainer)

    @staticmethod
    def _assert_zero(model: nn.Module, groups: ChannelGroups, plan: PruningPlan) -> None:
        alive = ChannelMask(model, groups, plan).violations()
        if alive:
            raise RuntimeError(
                f"channels that are to be cut are not zero in {', '.join(alive[:3])}: something "
                "writes to masked weights after the optimizer's step; the cut would change the "
                "model's output"
            )


def _say_mixed(found: CutDifference) -> str:
    return (
        f"{', '.join(found.mixed_by)} takes its statistics over channels of which some were cut: "
        f"the cut model differs from the masked one by {found.whole:.3g} of the largest output, "
        f"apart from that by {found.surgery:.3g}"
    )
