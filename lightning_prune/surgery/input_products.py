"""Inner products of what layers read, from one pass over some batches."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_prune.graph.forward_pass import untouched
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.names import modules_by_name
from lightning_prune.surgery.layer_matrix import LayerMatrix
from lightning_prune.surgery.places import Places

# Elements of the products that are held at once, in float32 (1 GiB).
LARGEST = 1 << 28


@dataclass
class InputProducts:
    """Sums over the places at which the inputs x of a layer were read.

    Attributes:
        products: Sum of x x^T, (n, n).
        total: Sum of x, (n,).
        count: How many x.
    """

    products: Tensor
    total: Tensor
    count: int

    @property
    def centred(self) -> Tensor:
        """Inner products around the mean, (n, n): those of a layer whose constant is free."""
        mean = self.total.double() / max(1, self.count)
        centred: Tensor = self.products.double() - self.count * torch.outer(mean, mean)
        return centred

    @property
    def is_finite(self) -> bool:
        """Return whether no input was NaN or infinite."""
        return bool(self.products.isfinite().all())


def precise(x: Tensor) -> Tensor:
    """Return inputs in which products can be summed: half precision is too coarse."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


@torch.no_grad()
def input_products(
    model: nn.Module,
    layers: Sequence[str],
    batches: Sequence[Any],
    forward: Callable[[nn.Module, Any], Any],
    places: Places,
) -> dict[str, InputProducts]:
    """Sum the inner products of what layers read, over some places of each image.

    A layer that runs several times in a pass is read each time. What would need more than 1 GiB
    is collected in several passes, and a layer that alone would need it not at all.

    Args:
        model: The model; it runs in eval mode.
        layers: Names of layers that are matrices (``layer_matrix``) of one group.
        batches: On the device of the model.
        forward: ``(model, batch) -> anything``.
        places: Which places are read.

    Warns:
        UserWarning: a layer has too many inputs.
    """
    modules = modules_by_name(model)
    found: dict[str, InputProducts] = {}
    inputs = {name: LayerMatrix(modules[name]).weight.shape[2] for name in layers}
    for names in portions(inputs, "its channels are judged by their norms"):
        handles = [
            modules[name].register_forward_pre_hook(
                _hook(name, LayerMatrix(modules[name]), found, places), with_kwargs=True
            )
            for name in names
        ]
        try:
            with untouched(model):
                model.eval()
                for number, batch in enumerate(batches):
                    places.batch = number
                    forward(model, batch)
        finally:
            for handle in handles:
                handle.remove()
    return found


def _hook(
    name: str, matrix: LayerMatrix, found: dict[str, InputProducts], places: Places
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def read(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        x: Tensor = inputs[0] if inputs else named["input"]
        with torch.autocast(x.device.type, enabled=False):
            (rows,) = read_rows(name, matrix, precise(x), places, places.batch)
            seen = found.get(name)
            if seen is None:
                wide = rows.shape[1]
                seen = InputProducts(rows.new_zeros(wide, wide), rows.new_zeros(wide), 0)
                found[name] = seen
            seen.products.addmm_(rows.T, rows)
            seen.total += rows.sum(0)
            seen.count += len(rows)

    return read


def read_rows(name: str, matrix: LayerMatrix, x: Tensor, places: Places, batch: int) -> Tensor:
    """Return what a layer reads of a batch at the places drawn for it: (groups, rows, inputs)."""
    images = matrix.images(x)
    return matrix.rows(x, places.draw(name, batch, images, matrix.places(x)))


def portions(inputs: Mapping[str, int], instead: str) -> Iterator[list[str]]:
    """Split layers so that the inner products of one portion fit into 1 GiB.

    Args:
        inputs: Layer -> number of its inputs, kernel included.
        instead: What becomes of a layer that has too many of them.

    Warns:
        UserWarning: a layer alone would need more; it is left out.
    """
    large = [name for name, wide in inputs.items() if (wide + 1) ** 2 > LARGEST]
    if large:
        more = f" and {len(large) - 1} more layers" if large[1:] else ""
        warnings.warn(
            f"{large[0]}{more} ({inputs[large[0]]} inputs): too many to reconstruct some from the "
            f"others; {instead}",
            stacklevel=3,
        )
    portion: list[str] = []
    size = 0
    for name, wide in inputs.items():
        if name in large:
            continue
        own = (wide + 1) ** 2  # a constant may be among them
        if portion and size + own > LARGEST:
            yield portion
            portion, size = [], 0
        portion.append(name)
        size += own
    if portion:
        yield portion


def shifted_layers(
    modules: Mapping[str, nn.Module], groups: ChannelGroups, norms: bool = True
) -> set[str]:
    """Return the layers whose output may be shifted: by their bias, or freely before a norm.

    Args:
        modules: All modules by name.
        groups: Channel groups, which know the order of the layers.
        norms: Whether statistics of the norm behind a layer follow.
    """
    following = dict(pairwise(groups.order))
    return {
        name
        for name, module in modules.items()
        if getattr(module, "bias", None) is not None
        or (norms and isinstance(modules.get(following.get(name, "")), _BatchNorm))
    }
