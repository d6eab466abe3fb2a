"""What all stages share that hold a mask on the weights while the model trains."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.policies.criteria.non_finite_importance import NonFiniteImportanceError
from lightning_prune.runs.trainer.ranks import broadcast
from lightning_prune.surgery.held_mask import HeldMask

Mask = TypeVar("Mask", bound=HeldMask)
Choice = TypeVar("Choice")


class HoldingStage(PruningStage, Generic[Mask]):
    """A stage with a mask that follows the optimizers."""

    def __init__(self) -> None:
        self._cut = False
        self._mask: Mask | None = None
        self._skipped: int | None = None

    def _let_go(self) -> None:
        if self._mask is not None:
            self._mask.release()
        self._mask = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Follow optimizers that were rebuilt: a new one knows nothing of the masks."""
        if self._mask is not None and not self._mask.holds(trainer.optimizers):
            self._mask.hold(trainer.optimizers)

    def apply_mask(self) -> None:
        """Zero again what is held at zero."""
        if self._mask is not None:
            self._mask.apply()

    def _decided(self, trainer: pl.Trainer, decide: Callable[[], Choice]) -> Choice | None:
        """Return rank 0's choice on every rank; None, with a warning, where there is no basis."""
        chosen: Choice | None = None
        refusal: str | None = None
        if trainer.is_global_zero:
            try:
                chosen = decide()
            except NonFiniteImportanceError as error:
                refusal = str(error)
        # One message for both: the other ranks cannot know which of them comes.
        chosen, refusal = broadcast(trainer, (chosen, refusal))
        if refusal is None:
            return chosen
        self._skipped = trainer.current_epoch
        rank_zero_warn(
            f"{type(self).__name__} masks nothing at the start of epoch {self._skipped + 1} "
            f"(global step {trainer.global_step}): {refusal}. The next step that is due tries "
            "again; where it fails too, lower the learning rate, clip gradients, or look for "
            "training images and activations that are not finite"
        )
        return None
