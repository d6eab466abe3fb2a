"""The best checkpoint of the cut model."""

import copy
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.callbacks.trainer.best_files import RUN_STATE, replaces_files
from lightning_prune.callbacks.trainer.lean_weights import LeanCheckpoint
from lightning_prune.runs.checkpoint.kept_files import follow_files
from lightning_prune.runs.run_marks import marks_of, same
from lightning_prune.surgery.cut import PrunedChannels


class PrunedCheckpoint(LeanCheckpoint):
    """Save the best model among the epochs after the cut, and nothing before.

    Pruning costs a little: over the whole run the best model is usually the dense one. It stands
    beside other ``ModelCheckpoint`` callbacks, and its state is saved apart from theirs.

    Args:
        dirpath: Folder of the files; None: Lightning's own choice.
        filename: Name of the file without its ending; may hold ``{epoch}`` and metrics.
        monitor: Metric that decides; None: the latest epoch counts.
        mode: ``max``: larger is better; ``min``: smaller.
        save_top_k: How many of the best files are kept; -1: all.
        save_weights_only: Leave out what resuming needs.
        enable_version_counter: Number the files instead of replacing one of the same name.
        lean_weights: Write the weights alone beside each file, as ``.safetensors``; they are
            replaced and removed with it.
    """

    acts_from = "masks"

    def __init__(
        self,
        dirpath: str | None = None,
        filename: str | None = "best_pruned",
        monitor: str | None = None,
        mode: Literal["min", "max"] = "max",
        save_top_k: int = 1,
        save_weights_only: bool = False,
        enable_version_counter: bool = False,
        lean_weights: bool = True,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename=filename,
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            save_weights_only=save_weights_only,
            enable_version_counter=enable_version_counter,
        )
        self.lean_weights = lean_weights
        self.pruned = False
        self._fresh = {name: copy.copy(vars(self)[name]) for name in ("pruned", *RUN_STATE)}
        self._marks: tuple[object, object] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Know of no best file in a new run: that of the last one held another model."""
        if stage == "fit":
            if self._marks is not None and not all(same(self._marks, trainer, pl_module)):
                if self.best_model_path and replaces_files(self):
                    rank_zero_warn(
                        f"PrunedCheckpoint begins a new run and will replace {self.best_model_path}"
                        " of the last one: move it, or give each run a dirpath of its own"
                    )
                vars(self).update({name: copy.copy(v) for name, v in self._fresh.items()})
            self._marks = marks_of(trainer, pl_module)
        super().setup(trainer, pl_module, stage)

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Save from now on."""
        self.pruned = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Know of a cut that fell before a resume, also in a run without this callback."""
        super().on_train_start(trainer, pl_module)
        self.pruned = self.pruned or Pipeline.of(trainer).is_cut

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save as ``ModelCheckpoint`` does, once channels are cut."""
        if self.pruned:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save as ``ModelCheckpoint`` does, once channels are cut."""
        if self.pruned:
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save as ``ModelCheckpoint`` does, once channels are cut."""
        if self.pruned:
            super().on_validation_end(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Find the best files in a folder that was moved, with their scores."""
        if trainer.state.fn == "fit":
            follow_files(trainer, checkpoint)

    def state_dict(self) -> dict[str, Any]:
        """Return the best files, and whether channels are cut."""
        return super().state_dict() | {"pruned": self.pruned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best files, and whether channels are cut."""
        super().load_state_dict(state_dict)
        self.pruned = state_dict["pruned"]
