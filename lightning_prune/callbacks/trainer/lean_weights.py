"""Weights alone beside the files that a ``ModelCheckpoint`` writes."""

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.files import write_bytes
from lightning_prune.files.part_file import PartFile
from lightning_prune.files.read_checkpoint import read_checkpoint
from lightning_prune.files.safetensors_bytes import safetensors_bytes

SUFFIX = ".safetensors"


class LeanCheckpoint(ModelCheckpoint):
    """A ``ModelCheckpoint`` whose files have one of the same name with the weights alone.

    Optimizer and callbacks take three quarters of a checkpoint, and only a resumed run reads them.
    The weights are those in the checkpoint (averaged ones, where a callback saves those). They are
    replaced and removed with it.

    Attributes:
        lean_weights: Whether they are written.
    """

    lean_weights = True

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        path = Path(filepath)
        if not self.lean_weights or not trainer.is_global_zero or not path.is_file():
            return
        try:
            state = read_checkpoint(path, "cpu")["state_dict"]
            names = trainer.lightning_module.hparams.get("names")
            names = [str(one) for one in names] if isinstance(names, list | tuple) else []
            target = path.with_suffix(SUFFIX)
            PartFile.clear_stale(target)  # what a killed run left
            write_bytes(target, safetensors_bytes(state, names))
        except OSError as error:  # the checkpoint itself is there
            rank_zero_warn(
                f"{path.with_suffix(SUFFIX)}: the weights alone are not written: {error}"
            )

    def _remove_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        super()._remove_checkpoint(trainer, filepath)
        if self.lean_weights and trainer.is_global_zero and "://" not in filepath:
            Path(filepath).with_suffix(SUFFIX).unlink(missing_ok=True)
