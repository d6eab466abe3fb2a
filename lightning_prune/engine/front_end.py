"""What the engine asks of whoever trains the model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.graph.group import ChannelGroups
from lightning_prune.observe.activations import ObjectActivations
from lightning_prune.observe.output_means import OutputMean
from lightning_prune.policies.criteria.criterion import Criterion

T = TypeVar("T")


class FrontEnd(Protocol):
    """A Trainer, or a loop of one's own, as the engine sees it.

    Where training runs in several processes, each of them makes the same calls in the same order.
    """

    @property
    def model(self) -> nn.Module:
        """Return the live model."""

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """Return the optimizers after whose steps masks are applied again."""

    @property
    def averaged_copies(self) -> Sequence[nn.Module]:
        """Averages of the model, which are masked with it."""

    @property
    def decides(self) -> bool:
        """Return whether this process decides, and logs, for all."""

    # --- data -------------------------------------------------------------------------------

    def batches(self, images: int | None) -> Iterable[Any]:
        """Return batches of about so many training images over all processes; None: all images."""

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """Run the forward pass on a batch."""

    def precision(self) -> AbstractContextManager[Any]:
        """Return the context of forward passes, such as autocast."""

    # --- what criteria need -----------------------------------------------------------------

    def check_needs(self, criterion: Criterion) -> None:
        """Refuse, before training, a criterion that needs what cannot be collected.

        Raises:
            ValueError: what is needed, why it is missing, and what to use instead.
        """

    def loss_gradients(
        self, images: int | None, each: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Set the gradients of the training loss for a while, then those from before."""

    def object_activations(self, layers: Sequence[str], beside_chance: bool) -> ObjectActivations:
        """Collect the activations of layers at objects, over all processes."""

    def output_means(
        self,
        groups: ChannelGroups,
        names: Sequence[str],
        values_of: Callable[[Tensor], Tensor],
        images: int | None,
    ) -> dict[str, OutputMean]:
        """Collect means over images of layer outputs, over all processes."""

    # --- processes --------------------------------------------------------------------------

    def agreed(self, value: T) -> T:
        """Return the value of the process that decides."""

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""

    def agree_on_norms(self) -> None:
        """Copy to every process the norm statistics of the one that decides."""

    def average_norms(self) -> None:
        """Average the norm statistics over all processes."""

    # --- the run ----------------------------------------------------------------------------

    def before_first_mask(self) -> None:
        """Do what is to be done while the model is dense."""

    def restart_averages(self) -> None:
        """Restart averages of the model with its weights."""

    def apply_masks(self) -> None:
        """Zero what any stage holds at zero: something was written there."""

    def progress(self, items: Sequence[T], title: str) -> Iterator[T]:
        """Yield items, and show how far they have come."""

    def report_failure(self, why: str) -> None:
        """Warn that a step could not be decided, and why."""
