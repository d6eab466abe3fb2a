"""A training loop of one's own as the engine sees it."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from lightning_prune.engine.evidence import GRADIENTS
from lightning_prune.engine.loss_gradients import loss_gradients
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.model_inputs import batch_length, model_inputs
from lightning_prune.loop.forward_pass import Forward
from lightning_prune.loop.processes import from_first, gathered, process_count, total
from lightning_prune.observe.activations import ObjectActivations
from lightning_prune.observe.output_means import (
    OutputMean,
    collect_outputs,
    merge_outputs,
    source_outputs,
)
from lightning_prune.policies.criteria.criterion import Criterion, Need, why_unmet
from lightning_prune.surgery.recalibrate import norm_statistics

T = TypeVar("T")
Batches = Iterable[Any] | Callable[[], Iterable[Any]]
Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class LoopFrontEnd:
    """A model, how it is called, and the data that the loop gives away.

    Where several processes train and each reads batches of its own, sums over them are over all
    processes, and the first one decides. Without batches each decides for itself: gradients are
    the same everywhere, and so are weights.

    Attributes:
        model: The live model.
        call: How it is called with inputs.
        example: Makes an input.
        batches_of: Training batches, to be read again and again; None: the loop gave none.
        loss: ``(model, batch) -> loss``; None: the loop gave none.
        optimizers: None: masks are applied again after the step of any optimizer.
        averaged_copies: None are known.
        decides: Whether this process decides: each does, and the first one counts.
    """

    model: nn.Module
    call: Forward
    example: Callable[[], Any]
    batches_of: Batches | None = None
    loss: Loss | None = None
    optimizers: Sequence[Optimizer] = ()
    averaged_copies: Sequence[nn.Module] = ()
    decides: bool = True

    def batches(self, images: int | None) -> Iterator[Any]:
        """Yield batches of this process' part of about so many images, on the model's device."""
        given: Batches = () if self.batches_of is None else self.batches_of
        device, seen = self._device, 0
        images = None if images is None else math.ceil(images / self._processes)
        for batch in given() if callable(given) else given:
            yield tree_map(lambda v: v.to(device) if isinstance(v, Tensor) else v, batch)
            seen += batch_length(batch)
            if images is not None and seen >= images:
                return

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """Call the model with the inputs in a batch."""
        return self.call(model, model_inputs(model, batch))

    def precision(self) -> AbstractContextManager[Any]:
        """Return no context: the loop calls with its own."""
        return nullcontext()

    def check_needs(self, criterion: Criterion) -> None:
        """Refuse what the loop gives no data for.

        Raises:
            ValueError: what is needed, and what to pass to ``Pruning``.
        """
        met: set[Need] = {"gradients"}  # those that backward left
        if self.batches_of is not None:
            met |= {"activations", "losses", *(GRADIENTS if self.loss is not None else ())}
        where = "a loop has where `batches` and `loss_fn` are passed to Pruning"
        if "clusters" in criterion.needs:
            where = "Pruning does not collect"
        unmet = why_unmet(criterion, met, where)
        if unmet is not None:
            raise ValueError(unmet)

    def check_batches(self, key: str, images: int) -> None:
        """Refuse a key that needs batches where the loop gives none.

        Raises:
            ValueError: there are none.
        """
        if images and self.batches_of is None:
            raise ValueError(
                f"channel_sparsity_args.{key}={images} needs training batches: pass "
                "Pruning(..., batches=loader)"
            )

    def loss_gradients(
        self, images: int | None, each: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Set the mean gradient of the loss over batches for a while; without, those there are.

        Raises:
            ValueError: there are neither batches nor gradients.
        """
        model, loss = self.model, self.loss
        if self.batches_of is not None and loss is not None:
            found = self.batches(images)
            total = None if self._processes == 1 else self.total
            return loss_gradients(
                model, found, lambda b, _: loss(model, b), nullcontext(), each, total
            )
        if all(parameter.grad is None for parameter in model.parameters()):
            raise ValueError(
                "channels are judged by the gradients of the loss, and there are none: call "
                "prune() after loss.backward() and before optimizer.zero_grad(), or pass "
                "`batches` and `loss_fn` to Pruning"
            )
        return nullcontext()

    def object_activations(self, layers: Sequence[str], beside_chance: bool) -> ObjectActivations:
        """Refuse: ``check_needs`` has done so before."""
        raise NotImplementedError("Pruning collects no activations at objects")

    def output_means(
        self,
        groups: ChannelGroups,
        names: Sequence[str],
        values_of: Callable[[Tensor], Tensor],
        images: int | None,
    ) -> dict[str, OutputMean]:
        """Collect means over images of layer outputs."""
        outputs = source_outputs(self.model, groups, names, self.example(), self.call)
        batches = self.batches(images)
        part = collect_outputs(self.model, batches, outputs, values_of, self.forward)
        return part if self._processes == 1 else merge_outputs(gathered(part))

    def agreed(self, value: T) -> T:
        """Return the first process' value; without batches each decides the same."""
        if self._processes == 1:
            return value
        agreed: T = from_first(value)
        return agreed

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over all processes that read batches of their own."""
        return value if self._processes == 1 else total(value, self._device)

    @torch.no_grad()
    def agree_on_norms(self) -> None:
        """Copy to every process the norm statistics of the first one."""
        if self._processes > 1:
            norms = norm_statistics(self.model)
            for value, first in zip(norms, from_first([v.cpu() for v in norms]), strict=True):
                value.copy_(first)

    @torch.no_grad()
    def average_norms(self) -> None:
        """Average the norm statistics over all processes."""
        if self._processes > 1:
            for value in norm_statistics(self.model):
                value.copy_(total(value, self._device) / self._processes)

    def before_first_mask(self) -> None:
        """Do nothing: checkpoints are the loop's."""

    def restart_averages(self) -> None:
        """Do nothing: averages are the loop's."""

    def apply_masks(self) -> None:
        """Do nothing: what a refit changes is masked next."""

    def progress(self, items: Sequence[T], title: str) -> Iterator[T]:
        """Yield items."""
        yield from items

    def report_failure(self, why: str) -> None:
        """Warn that nothing was masked, and why."""
        warnings.warn(
            f"nothing is masked: {why}. The next call of prune() tries again; where it fails too, "
            "lower the learning rate or clip gradients",
            stacklevel=6,
        )

    @property
    def _device(self) -> torch.device:
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @property
    def _processes(self) -> int:
        return 1 if self.batches_of is None else process_count()
