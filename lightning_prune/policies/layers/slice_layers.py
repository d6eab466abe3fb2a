"""The layers whose weights are pruned slice by slice."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from lightning_prune.annotations import Such
from lightning_prune.functional.slices import filters_back, filters_first
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.layer_kinds import width_of
from lightning_prune.graph.names import modules_by_name
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.mask import channel_slices
from lightning_prune.validation import validated


@dataclass(frozen=True)
class SliceLayer:
    """A convolution or linear layer, seen as filters.

    Attributes:
        name: Name of the layer as in ``named_modules()``, without what ``torch.compile`` inserts.
        module: The live layer.
    """

    name: str
    module: nn.Module

    @property
    def weight(self) -> nn.Parameter:
        """Return the weight as it is now: a cut replaces it."""
        weight = self.module.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def filters(self, values: Tensor) -> Tensor:
        """Return a tensor of the weight's shape with its filters in front."""
        return filters_first(values, *self._order)

    def back(self, filters: Tensor) -> Tensor:
        """Return a tensor with filters in front in the weight's shape."""
        return filters_back(filters, *self._order)

    @property
    def in_place(self) -> bool:
        """Return whether ``filters`` returns a view."""
        transposed, groups = self._order
        return not transposed or groups == 1

    @property
    def _order(self) -> tuple[bool, int]:
        groups = self.module.groups if isinstance(self.module, _ConvNd) else 1
        return isinstance(self.module, _ConvTransposeNd), groups


SliceLayers = Annotated[
    list[str] | None,
    Such(
        bool,
        "a list of layer names or patterns such as ['backbone.*'], ['!head.*'] (all but these)",
        "null stands for all convolutions",
    ),
]
"""A choice of layers, before there is a model."""


@validated
def slice_layers(model: nn.Module, layers: SliceLayers, block_size: int) -> dict[str, SliceLayer]:
    """Return the layers that a choice means, in the order of the model.

    Args:
        model: The live model.
        layers: Names or shell patterns; with a leading ``!``: without these. None, or only such
            exceptions: every convolution (transposed ones too) whose weight is trained. Linear
            layers take part where they are named.
        block_size: A, weights per slice; divides the number of filters of each layer.

    Raises:
        ValueError: a name matches no layer; a weight is computed from others; the block size does
            not divide the filters of some layers, which the message names.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 1))
    >>> list(slice_layers(net, ["!2"], 8))
    ['0']
    """
    wanted = [name for name in layers or () if not name.startswith("!")]
    spared = [name[1:] for name in layers or () if name.startswith("!")]
    candidates = {
        name: SliceLayer(name, module)
        for name, module in modules_by_name(model).items()
        if isinstance(module, _ConvNd | nn.Linear)
    }
    for pattern in wanted + spared:
        if not any(fnmatchcase(name, pattern) for name in candidates):
            raise ValueError(f"layers: {_unknown(pattern, list(candidates))}")
    found: dict[str, SliceLayer] = {}
    seen: set[int] = set()
    for name, layer in candidates.items():
        named = any(fnmatchcase(name, pattern) for pattern in wanted)
        usual = not wanted and isinstance(layer.module, _ConvNd)
        if any(fnmatchcase(name, pattern) for pattern in spared) or not (named or usual):
            continue
        if parametrize.is_parametrized(layer.module) or hasattr(layer.module, "weight_g"):
            raise ValueError(
                f"the weight of {name} is computed from others: remove the parametrization first, "
                f"or leave the layer out with layers=['!{name}']"
            )
        # A weight that two layers share is one weight; a frozen one holds constants.
        if id(layer.weight) in seen or not (named or layer.weight.requires_grad):
            continue
        seen.add(id(layer.weight))
        found[name] = layer
    _check_widths(found, block_size)
    return found


def _check_widths(layers: Mapping[str, SliceLayer], block_size: int) -> None:
    odd = {n: width_of(v.module) for n, v in layers.items() if width_of(v.module) % block_size}
    if not odd:
        return
    listed = ", ".join(f"{name} ({width})" for name, width in odd.items())
    raise ValueError(
        f"block_size={block_size} does not divide the number of filters of {listed}: pass a "
        f"divisor, or leave these layers out with layers={[f'!{name}' for name in odd]}"
    )


def _unknown(pattern: str, names: list[str]) -> str:
    near = get_close_matches(pattern, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {names[:5]} ..."
    return f"no convolution or linear layer {pattern!r}: {hint}"


def unmasked_weights(
    model: nn.Module, groups: ChannelGroups, plan: PruningPlan
) -> dict[str, Tensor]:
    """Mark what masked channels leave of each weight: bool of the weight's shape, True = lives.

    Layers that the plan does not touch are absent.
    """
    unmasked: dict[str, Tensor] = {}
    for part in channel_slices(model, groups, plan):
        if part.tensor != "weight" or not len(part.index):
            continue
        values = part.values
        mask = unmasked.setdefault(
            part.layer, torch.ones(values.shape, dtype=torch.bool, device=values.device)
        )
        mask.index_fill_(part.dim, part.index.to(values.device), False)
    return unmasked


def unmasked_filters(layer: SliceLayer, unmasked: Mapping[str, Tensor]) -> Tensor | None:
    """Return the indices of the filters that masked channels leave; None: all.

    The layout of slices goes by these: it is the layout of the layer once it is cut.
    """
    if layer.name not in unmasked:
        return None
    rows = layer.filters(unmasked[layer.name]).flatten(1).any(1)
    return None if bool(rows.all()) else rows.nonzero().flatten()
