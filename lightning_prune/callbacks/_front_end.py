"""A Trainer as the engine sees it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm.auto import tqdm

from lightning_prune.callbacks._data import (
    collection_batches,
    example_input,
    forward_batch,
    has_collection_loader,
)
from lightning_prune.callbacks._gradients import loss_gradients
from lightning_prune.callbacks._observation import (
    Observation,
    agree_on_norms,
    observe_objects,
    observe_outputs,
)
from lightning_prune.callbacks.pipeline import Pipeline
from lightning_prune.callbacks.trainer.averages import (
    average_norms,
    averaged_copies,
    restart_averages,
    save_validated_weights,
)
from lightning_prune.callbacks.trainer.precision import forward_context
from lightning_prune.engine.evidence import GRADIENTS
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.observe.activations import ObjectActivations, warn_of_rare_classes
from lightning_prune.observe.output_means import OutputMean, source_outputs
from lightning_prune.policies.criteria.criterion import Criterion, why_unmet
from lightning_prune.runs.trainer.ranks import broadcast, total

T = TypeVar("T")


class TrainerFrontEnd:
    """A Trainer, its module and its data.

    Args:
        trainer: The running Trainer.
        pl_module: Its module.
        stage: Name of the stage, for messages.
        observation: How objects are observed.
        dense_checkpoint: Where the dense model is saved before the first mask; None: nowhere.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        stage: str = "",
        observation: Observation | None = None,
        dense_checkpoint: str | None = None,
    ) -> None:
        self.trainer, self.module, self.stage = trainer, pl_module, stage
        self._observation = Observation() if observation is None else observation
        self._dense_checkpoint = dense_checkpoint
        self._has_observed = False

    @property
    def model(self) -> nn.Module:
        """Return the module."""
        return self.module

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """Return the Trainer's optimizers as they are now."""
        return self.trainer.optimizers

    @property
    def averaged_copies(self) -> Sequence[nn.Module]:
        """Return the copies that averaging callbacks keep."""
        return averaged_copies(self.trainer)

    @property
    def decides(self) -> bool:
        """Return whether this is rank 0."""
        return self.trainer.is_global_zero

    def batches(self, images: int | None) -> Iterable[Any]:
        """Return batches of the training split, with evaluation transforms."""
        return collection_batches(self.trainer, self.module, images)

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """Run the forward pass on what of a batch it takes."""
        return forward_batch(model, batch)

    def precision(self) -> AbstractContextManager[Any]:
        """Return the context of the Trainer's precision."""
        context: AbstractContextManager[Any] = forward_context(self.trainer)
        return context

    def check_needs(self, criterion: Criterion) -> None:
        """Refuse gradients where only ``training_step`` can take them.

        Raises:
            ValueError: the criterion needs them, and the module optimizes by hand.
        """
        unmet = criterion.needs & GRADIENTS
        if unmet and not self.module.automatic_optimization:
            where = "under manual optimization only training_step itself can take"
            raise ValueError(why_unmet(criterion, criterion.needs - unmet, where))

    def loss_gradients(
        self, images: int | None, each: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Set the gradients of ``training_step``'s loss for a while, then those from before."""
        return loss_gradients(self.trainer, self.module, images, each)

    def object_activations(self, layers: Sequence[str], beside_chance: bool) -> ObjectActivations:
        """Collect the activations of layers at objects of the training split."""
        if not self._has_observed:
            has_collection_loader(self.trainer, self.module)
        how = self._observation
        seen = observe_objects(self.trainer, self.module, layers, how, beside_chance=beside_chance)
        if self.decides and not self._has_observed:
            warn_of_rare_classes(seen)
        self._has_observed = True
        return seen

    def output_means(
        self,
        groups: ChannelGroups,
        names: Sequence[str],
        values_of: Callable[[Tensor], Tensor],
        images: int | None,
    ) -> dict[str, OutputMean]:
        """Collect means over training images of layer outputs."""
        example = example_input(self.trainer, self.module)
        with self.precision():
            outputs = source_outputs(self.module, groups, names, example)
        return observe_outputs(self.trainer, self.module, outputs, values_of, images)

    def agreed(self, value: T) -> T:
        """Return rank 0's value."""
        agreed: T = broadcast(self.trainer, value)
        return agreed

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks."""
        return total(self.trainer, value)

    def agree_on_norms(self) -> None:
        """Copy to every rank the norm statistics of rank 0."""
        agree_on_norms(self.trainer, self.module)

    def average_norms(self) -> None:
        """Average the norm statistics over all ranks."""
        average_norms(self.trainer, self.module)

    def before_first_mask(self) -> None:
        """Save the dense model, if it is to be saved."""
        if self._dense_checkpoint is not None:
            save_validated_weights(self.trainer, self._dense_checkpoint)

    def restart_averages(self) -> None:
        """Restart averages with the module's weights."""
        restart_averages(self.trainer, self.module)

    def apply_masks(self) -> None:
        """Zero again what the stages hold at zero."""
        Pipeline.of(self.trainer).apply_masks()

    def progress(self, items: Sequence[T], title: str) -> Iterator[T]:
        """Yield items, with a bar on rank 0."""
        silent = not self.decides or len(items) < 2
        yield from tqdm(items, title, leave=False, disable=silent)

    def report_failure(self, why: str) -> None:
        """Warn that nothing was masked at this epoch, and why."""
        rank_zero_warn(
            f"{self.stage} masks nothing at the start of epoch {self.trainer.current_epoch + 1} "
            f"(global step {self.trainer.global_step}): {why}. The next step that is due tries "
            "again; where it fails too, lower the learning rate, clip gradients, or look for "
            "training images and activations that are not finite"
        )
