"""The label-free stage: right after a cut the network is drawn towards the dense one."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from tqdm.auto import tqdm

from lightning_prune.annotations import Above, AtLeast
from lightning_prune.arguments import Count
from lightning_prune.callbacks._data import collection_loader
from lightning_prune.callbacks._dense_network import DenseNetwork, dense_file
from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.callbacks.stage import PruningStage
from lightning_prune.callbacks.trainer.averages import restart_averages
from lightning_prune.callbacks.trainer.precision import on_device
from lightning_prune.engine.calibration_set import CalibrationSet
from lightning_prune.engine.kept_features import kept_features
from lightning_prune.engine.label_free_steps import StepsTaken, label_free_steps
from lightning_prune.engine.output_agreement import agreement, outputs_of
from lightning_prune.graph.forward_pass import untouched
from lightning_prune.graph.model_inputs import batch_length
from lightning_prune.runs.trainer.ranks import broadcast
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.validation import validated

_FEWEST = 5


class LabelFreeSteps(PruningStage):
    """Train some steps towards the dense network's outputs right after the cut, without labels.

    Training images without their labels, no task loss: the pruned network learns what the dense
    one of the same run says (the file that the masker writes before its first mask), outputs and
    features, as ``lightning_prune.compress`` does. Every fifth image is held back; the weights that
    agree best with the dense network on these are kept, those from before the steps where none do.
    Training with labels continues from there. Averages of the model start again.

    Args:
        steps: Number of steps, each of a batch as the loader of the data gives it.
        images: Training images that steps are made of, the fifth that is held back among them.
        peak_lr: Learning rate after the warm-up.
        mirror: Whether every second batch, by chance, is mirrored, where images keep their meaning.
        teacher: A checkpoint of the same network before it was pruned, instead of the masker's.
        seed: Of the order of the batches.

    Raises:
        ValueError: an argument is out of range; before training: no dense network to learn from, a
            file that is missing, was changed or is of another network.

    Source: Liu, Zhang, Kuang, Zhou, Xue, Wang, Chen, Yang, Liao, Zhang, 2022, Practical network
    acceleration with tiny sets, CVPR, arXiv 2202.07861.
    """

    acts_from = "masks"

    @validated
    def __init__(
        self,
        steps: Annotated[int, AtLeast(1, "label-free steps")] = 300,
        images: Count = 256,
        peak_lr: Annotated[float, Above(0, "a learning rate")] = 5e-4,
        mirror: bool = False,
        teacher: str | None = None,
        seed: int = 0,
    ) -> None:
        self.steps = steps
        self.images = images
        self.peak_lr = peak_lr
        self.mirror = mirror
        self.teacher = teacher
        self.seed = seed
        self.taken: StepsTaken | None = None
        self._dense = DenseNetwork("LabelFreeSteps", teacher)

    @property
    def label_free(self) -> Mapping[str, Any] | None:
        """Return what came of the steps, for the report; None: nothing was cut yet."""
        return None if self.taken is None else asdict(self.taken)

    def calendar(self, pl_module: pl.LightningModule, cuts: bool) -> str | None:
        """Return when steps are made, in words."""
        return f"{self.steps} steps towards the dense network, without labels, right after the cut"

    # --- hooks ------------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check that there is, or will be, a dense network."""
        if not Pipeline.of(trainer).maskers:
            raise ValueError(
                "LabelFreeSteps has no pruned network to train: no callback masks channels; add a "
                "masker, such as those of +pruning=compress"
            )
        if self.taken is not None:
            return  # a run that was resumed behind them needs the dense network no more
        if self._dense.is_known or self.teacher is not None:
            self._dense.load(trainer, pl_module)
        elif dense_file(trainer) is None:
            raise ValueError(
                "LabelFreeSteps has no dense network to learn from: set dense_checkpoint of the "
                "masker to a file that is written before the first mask, or teacher to a "
                "checkpoint of the dense network"
            )

    def on_channels_pruned(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, pruned: PrunedChannels
    ) -> None:
        """Train the cut network without labels."""
        if not self._dense.is_known and self.teacher is None:
            self._dense.remember(trainer)
        dense = self._dense.load(trainer, pl_module)
        with untouched(pl_module):  # an iterator of a loader draws from the random state
            pictures = CalibrationSet.of(pl_module, self._batches(trainer, pl_module))
        if pictures.images < _FEWEST - 1 or not pictures.held_back:
            rank_zero_warn(
                f"LabelFreeSteps has no effect: {pictures.images} training images are too few to "
                "hold some back; raise images or leave the callback out"
            )
            return
        features = kept_features(dense, pruned.groups, pruned.plan)
        self.taken = taken = self._steps(trainer, pl_module, dense, pictures, features)
        agreed = f"agreement with the dense network {taken.before:.3f} -> {taken.after:.3f}"
        rank_zero_info(
            f"Epoch {trainer.current_epoch + 1}: {taken.steps} steps without labels, {agreed}"
            + (f", of the weights after {taken.kept}." if taken.kept else "; they were taken back.")
        )
        restart_averages(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return which dense network this run learns from, and what came of it."""
        digest, path = self._dense.digest, self._dense.path
        return {"digest": digest, "path": path, "taken": self.label_free}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._dense.digest, self._dense.path = state_dict["digest"], state_dict["path"]
        taken = state_dict["taken"]
        self.taken = None if taken is None else StepsTaken(**taken)

    # --- the steps --------------------------------------------------------------------------

    def _batches(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[Any]:
        """Yield the same batches on every rank: all of them make the same steps."""
        seen = 0
        for batch in on_device(trainer, collection_loader(trainer, pl_module)):
            yield batch
            seen += batch_length(batch)
            if seen >= self.images:
                return

    def _steps(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        dense: nn.Module,
        pictures: CalibrationSet,
        features: Mapping[str, Tensor],
    ) -> StepsTaken:
        wanted = outputs_of(dense, pictures.held_back)
        silent = not trainer.is_global_zero

        def shown(steps: Iterable[int]) -> Iterator[int]:
            yield from tqdm(steps, "Label-free steps", leave=False, disable=silent)

        taken = label_free_steps(
            pl_module, dense, pictures.fitted,
            lambda: agreement(pl_module, pictures.held_back, wanted),
            features=features, mirror=self.mirror, steps=self.steps, lr=self.peak_lr,
            seed=self.seed, hold=Pipeline.of(trainer).apply_masks, progress=shown,
        )  # fmt: skip
        if trainer.world_size > 1:  # processes round differently
            agreed = broadcast(trainer, [p.detach().cpu() for p in pl_module.parameters()])
            with torch.no_grad():
                for parameter, value in zip(pl_module.parameters(), agreed, strict=True):
                    parameter.copy_(value)
        return taken
