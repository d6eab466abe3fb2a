"""What all pruning callbacks share."""

import copy
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.runs.checkpoint.readable_files import check_hyper_parameters
from lightning_prune.runs.finite_watch import watch_weights
from lightning_prune.runs.run_marks import marks_of, same
from lightning_prune.runs.trainer.callbacks_of import callbacks_of
from lightning_prune.surgery.architecture import track_architecture


class PruningStage(Callback):
    """A stage of pruning: refuses what it cannot work with before training starts.

    Stages may be used in one fit after another. The same Trainer and module continue the run;
    another Trainer or another module begin a new one, for which the stage is as it was made.
    """

    done: bool = False
    """Whether it has cut channels."""
    acts_from: Literal["the start", "start_epoch", "masks"] = "the start"
    """What training depends on it from: runs that differ in later stages have epochs in common."""
    _fresh: dict[str, Any] | None = None
    _marks: tuple[object, object] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check strategy and order, and make the module's checkpoints describe themselves.

        Raises:
            ValueError: a module that says why nothing of it may change (``refuses_pruning``), a
                strategy that shards parameters, Lightning's own pruning, a callback in the wrong
                place, or hyper-parameters that no checkpoint can hold.
        """
        # For validation and test too: ckpt_path may be a file of the cut model.
        track_architecture(pl_module)
        if stage == "fit":
            refusal = getattr(pl_module, "refuses_pruning", None)
            if isinstance(refusal, str):
                name, module = type(self).__name__, type(pl_module).__name__
                raise ValueError(f"{name} cannot work on this {module}: {refusal}")
            self._begin_fit(trainer, pl_module)
            Pipeline.of(trainer).check(PruningStage)
            check_hyper_parameters(trainer, pl_module)
            watch_weights(trainer)

    def _begin_fit(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continue the run of the last fit, or begin a new one as the stage was made."""
        self._let_go()
        if self._fresh is None:
            self._fresh = copy.deepcopy(self.state_dict())
        elif not all(same(self._marks, trainer, pl_module)):
            name, again = type(self).__name__, same(self._marks, trainer, pl_module)[1]
            if again and self.done:
                rank_zero_warn(
                    f"{name} begins a new run with a model that it has cut already: the model is "
                    "pruned further. To train it as it is, leave the pruning callbacks out of this "
                    "Trainer; to continue the run, resume its checkpoint (ckpt_path)"
                )
            self._log_reuse(trainer, pl_module)
            self.load_state_dict(copy.deepcopy(self._fresh))
            self._forget_run()
        self._marks = marks_of(trainer, pl_module)

    @staticmethod
    def _log_reuse(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Name all stages that begin a new run, in one message."""
        stages = (c for c in callbacks_of(trainer) if isinstance(c, PruningStage))
        used = [c for c in stages if c._fresh is not None]
        names = [type(c).__name__ for c in used if not all(same(c._marks, trainer, pl_module))]
        Pipeline.of(trainer).log_reuse(names)

    def _let_go(self) -> None:
        """Drop what belongs to the model and the optimizers of the last fit."""

    def _forget_run(self) -> None:
        """Drop what belongs to the last run and is no part of the state."""
