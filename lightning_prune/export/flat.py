"""A network between plain tensors."""

import warnings
from collections import Counter
from collections.abc import Collection
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from lightning_prune.functional.named_tensors import Path, named_tensors, unknown_types
from lightning_prune.graph.forward_pass import call


class Flat(nn.Module):
    """A network that takes and returns plain tensors, in the order in which its structures do.

    Args:
        model: The network.
        example_input: A tensor, or a tuple or dict of arguments.
    """

    def __init__(self, model: nn.Module, example_input: Any):
        super().__init__()
        self.model = model
        self.leaves, self.spec = tree_flatten(example_input)
        self.places = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor)]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors of the example input."""
        return tuple(self.leaves[place] for place in self.places)

    def output(self, *tensors: Tensor) -> Any:
        """Return what the network returns."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        return call(self.model, tree_unflatten(leaves, self.spec))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors in what the network returns."""
        return tuple(named_tensors(self.output(*tensors)).values())


def output_names(output: Any, taken: Collection[str] = ()) -> tuple[str, ...]:
    """Return names for the tensors of an output: keys and fields, else output0, output1, ...

    Args:
        output: What the network returned.
        taken: Names that other things have.

    Raises:
        ValueError: there is no tensor in it.

    >>> import torch
    >>> part = torch.zeros(1)
    >>> output_names((part, part)), output_names({"maps": [part, part], "logits": part})
    (('output0', 'output1'), ('maps.0', 'maps.1', 'logits'))
    """
    paths, kinds = list(named_tensors(output)), unknown_types(output)
    if not paths:
        kind = ", ".join(kinds) or type(output).__name__
        raise ValueError(
            f"no tensor is found in the network's output, of type {kind}: let forward return "
            "tensors, lists, dicts, dataclasses or named tuples of them"
        )
    if kinds:
        warnings.warn(
            f"the network's output holds a {', '.join(kinds)} beside its tensors: left out of the "
            "file",
            stacklevel=2,
        )
    found = [_name(path, place) for place, path in enumerate(paths)]
    counts = Counter([*found, *taken])
    return tuple(
        name if counts[name] == 1 else f"{name}_output{place}" for place, name in enumerate(found)
    )


def _name(path: Path, place: int) -> str:
    named = any(isinstance(part, str) and part for part in path)
    return ".".join(map(str, path)) if named else f"output{place}"
