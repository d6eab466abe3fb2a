"""What the layers that read a group lose at each of its widths, the others refitted."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.functional.reconstruction.elimination import Consumer, Elimination, eliminate
from lightning_prune.graph.group import ChannelGroups, Group
from lightning_prune.graph.names import modules_by_name
from lightning_prune.surgery.channel_weights import ChannelWeights
from lightning_prune.surgery.input_products import InputProducts, input_products
from lightning_prune.surgery.layer_matrix import LayerMatrix, is_matrix
from lightning_prune.surgery.places import Places


def _all(items: Sequence[str]) -> Iterable[str]:
    return items


def repaired_losses(
    model: nn.Module,
    groups: ChannelGroups,
    widths: Mapping[str, Sequence[int]],
    batches: Sequence[Any],
    forward: Callable[[nn.Module, Any], Any],
    *,
    places: Places | None = None,
    ridge: float = 0.01,
    total: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[Sequence[str]], Iterable[str]] = _all,
) -> dict[str, Elimination]:
    """Order the channels of groups by what their consumers cannot repair, and measure the losses.

    The consumers of a group are the convolutions and linear layers (of one group each) that its
    channels reach; the loss at a width is the squared error that remains when all of their weights
    are refitted, as a fraction of the variance of their outputs, summed over them. Where no such
    layer reads a group (attention in one call, recurrent layers), channels go in the order of their
    norms and the loss is the fraction of the squared norms that is gone.

    Args:
        model: The dense model; it is left as it is.
        groups: Its channel groups.
        widths: Group -> widths whose losses are wanted, descending from all channels.
        batches: On the device of the model.
        forward: ``(model, batch) -> anything``.
        places: Which places are read; None: 64 of each image.
        ridge: Regularization as a fraction of the mean squared input, positive.
        total: Sums a tensor over all processes; None: there is one.
        progress: Yields the names of the groups, and shows how far they have come.
    """
    modules = modules_by_name(model)
    blocks = {name: _blocks(modules, groups[name]) for name in widths}
    layers = dict.fromkeys(layer for own in blocks.values() for layer in own)
    products = input_products(model, list(layers), batches, forward, places or Places())
    if total is not None:
        products = {name: _everywhere(own, total) for name, own in products.items()}
    norms = ChannelWeights(model, groups, list(widths))
    squares = norms.split(norms.squares().cpu())
    found = {}
    for name in progress(list(widths)):
        consumers = [
            Consumer(
                products[layer].centred / max(1, products[layer].count),
                LayerMatrix(modules[layer]).weight[0],
                index,
            )
            for layer, index in blocks[name].items()
            if layer in products and products[layer].is_finite
        ]
        if consumers:
            found[name] = eliminate(consumers, widths[name], ridge=ridge)
        else:
            found[name] = _by_norm(squares[name], widths[name])
    return found


def _everywhere(own: InputProducts, total: Callable[[Tensor], Tensor]) -> InputProducts:
    count = total(own.total.new_tensor(float(own.count)))
    return InputProducts(total(own.products), total(own.total), int(count))


def _blocks(modules: Mapping[str, nn.Module], group: Group) -> dict[str, Tensor]:
    """Return for each layer that reads a group the inputs of each channel, (C, b)."""
    places: dict[str, list[list[int]]] = {}
    for member in group.members:
        layer = modules[member.layer]
        if member.role != "consumer" or not is_matrix(layer):
            continue
        matrix = LayerMatrix(layer)
        if matrix.groups > 1 or ("weight", 0 if matrix.transposed else 1) not in member.dims:
            continue
        own = places.setdefault(member.layer, [[] for _ in range(group.channels)])
        for index, channel in zip(member.index.tolist(), member.channel.tolist(), strict=True):
            own[channel].extend(range(index * matrix.taps, (index + 1) * matrix.taps))
    return {
        name: torch.tensor(own)
        for name, own in places.items()
        # Channels that a layer reads at different numbers of places have no common block.
        if len({len(block) for block in own}) == 1 and own[0]
    }


def _by_norm(squares: Tensor, widths: Sequence[int]) -> Elimination:
    order = torch.argsort(squares, stable=True)
    gone = torch.cat([squares.new_zeros(1), squares[order].cumsum(0)]) / squares.sum().clamp(
        min=1e-30
    )
    losses = tuple(float(gone[widths[0] - width]) for width in widths)
    return Elimination(order[: widths[0] - widths[-1]], tuple(widths), losses)
