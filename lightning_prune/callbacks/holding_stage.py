"""What all stages share that hold something at zero while the model trains."""

from abc import abstractmethod
from typing import Any, Generic, Protocol, TypeVar

import lightning.pytorch as pl
from torch.optim import Optimizer

from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.engine.live_mask import LiveMask
from lightning_prune.engine.mask_state import MaskState


class Run(Protocol):
    """What is at work on the model of one fit."""

    @property
    def live(self) -> LiveMask:
        """What is held at zero now."""


RunT = TypeVar("RunT", bound=Run)


class HoldingStage(PruningStage, Generic[RunT]):
    """A stage with a mask that follows the optimizers.

    Its state is a ``MaskState``, which is its checkpoint too; what is at work on the model of a fit
    is made again for each.
    """

    def __init__(self) -> None:
        self._state = MaskState()
        self._run: RunT | None = None

    @property
    @abstractmethod
    def is_cut(self) -> bool:
        """Return whether channels were cut in this run."""

    def _let_go(self) -> None:
        if self._run is not None:
            self._run.live.release()
        self._run = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Follow optimizers that were rebuilt: a new one knows nothing of the masks."""
        if self._run is not None:
            self._run.live.follow()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Leave masked channels out of the norm that gradients are clipped by, as the cut does.

        A penalty of the module's own that divides by the length of a filter, or takes a root of
        its square, has no finite gradient where the filter is zero.
        """
        if self._run is not None and trainer.gradient_clip_val is not None:
            self._run.live.clear_gradients()

    def apply_mask(self) -> None:
        """Zero again what is held at zero, in averages too."""
        if self._run is not None:
            self._run.live.apply()
            self._run.live.mask_averages()

    def state_dict(self) -> dict[str, Any]:
        """Return how far masks have come, and what is masked as it was before, as plain data."""
        return self._state.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._state = MaskState.from_state_dict(state_dict)
