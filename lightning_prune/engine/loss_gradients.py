"""Gradients of the loss at a moment between two epochs, leaving no trace."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.graph.forward_pass import untouched
from lightning_prune.graph.model_inputs import batch_length


@contextmanager
def loss_gradients(
    model: nn.Module,
    batches: Iterable[Any],
    loss_of: Callable[[Any, int], Tensor | None],
    aside: AbstractContextManager[Any],
    each: Callable[[], None] | None = None,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[None]:
    """Hold in every parameter's ``.grad`` the mean gradient of a loss, then that from before.

    Each batch is weighted by its number of images. A gradient that is NaN where its weight is zero
    counts as zero: a penalty of the model's own on the length of a filter has none at a masked
    one. Modes, buffers, random states and the gradients
    that were there are those from before afterwards.

    Args:
        model: The live model.
        batches: Batches on its device.
        loss_of: ``(batch, number of the batch) -> loss``; None: the batch has none.
        aside: Context in which the losses are computed.
        each: Called after every batch, while ``.grad`` holds the gradient of its loss alone.
        total: Sums a tensor over all processes; None: there is one.

    >>> from contextlib import nullcontext
    >>> net = nn.Linear(1, 1, bias=False)
    >>> batches = [torch.tensor([[1.0]]), torch.tensor([[4.0], [4.0], [4.0]])]
    >>> with loss_gradients(net, batches, lambda x, _: net(x).mean(), nullcontext()):
    ...     net.weight.grad.tolist()
    [[3.25]]
    >>> net.weight.grad is None
    True
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    before = [p.grad for p in parameters]
    try:
        sums: list[Tensor | None] = [None] * len(parameters)
        seen = 0
        with _buffers_restored(model), untouched(model), aside:
            for number, batch in enumerate(batches):
                for parameter in parameters:
                    parameter.grad = None
                loss = loss_of(batch, number)
                if loss is None:
                    continue
                length = batch_length(batch)
                loss.backward()
                _clear_undefined(parameters)
                if each is not None:
                    each()
                sums = [
                    _added(p.grad, so_far, length)
                    for p, so_far in zip(parameters, sums, strict=True)
                ]
                seen += length
        place = next((p.device for p in parameters), None)
        count = torch.tensor(float(seen), device=place)
        count = count if total is None else total(count)
        for parameter, summed in zip(parameters, sums, strict=True):
            # DDP's ranks reduce the same parameters, whether or not each of them has a gradient.
            own = torch.zeros_like(parameter) if summed is None else summed
            parameter.grad = (own if total is None else total(own)) / count.clamp(min=1)
        yield
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient


def _clear_undefined(parameters: Iterable[nn.Parameter]) -> None:
    for parameter in parameters:
        if parameter.grad is not None:
            undefined = parameter.grad.isnan() & (parameter.detach() == 0)
            parameter.grad.masked_fill_(undefined, 0.0)


def _added(gradient: Tensor | None, before: Tensor | None, times: int) -> Tensor | None:
    if gradient is None:
        return before
    return gradient * times if before is None else before.add_(gradient, alpha=times)


@contextmanager
def _buffers_restored(model: nn.Module) -> Iterator[None]:
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
