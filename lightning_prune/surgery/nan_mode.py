"""What both kinds of passes with NaN have in common: operations seen, and contractions known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

# Places of the operands of a matrix product, each with its contracted dimension.
PRODUCTS = {
    "mm": ((0, 1), (1, 0)), "addmm": ((1, 1), (2, 0)), "bmm": ((0, 2), (1, 1)),
    "baddbmm": ((1, 2), (2, 1)), "mv": ((0, 1), (1, 0)), "addmv": ((1, 1), (2, 0)),
    "dot": ((0, 0), (1, 0)), "vdot": ((0, 0), (1, 0)), "linear": ((0, -1), (1, 1)),
}  # fmt: skip

Source = tuple[str, Tensor]
"""Name of a tensor of the model, and for each place of an operand its place in it, flattened."""


@dataclass(frozen=True)
class Product:
    """A contraction: of what its operands are parts, and where it is.

    Attributes:
        shapes: Shapes of the operands.
        sources: For each the tensor of the model that it is a part of, where it is one.
        weights: For each whether it is computed from the model's tensors alone.
        layer: The layer in which it runs.
    """

    shapes: tuple[torch.Size, ...]
    sources: tuple[Source | None, ...]
    weights: tuple[bool, ...]
    layer: str


class NanMode(TorchDispatchMode):
    """Sees every operation of a pass, and knows which module runs.

    Args:
        tensors: The model's floating-point parameters and buffers by name.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors = tensors
        self.stack: list[str] = []

    @property
    def layer(self) -> str:
        """Return the layer that runs."""
        return self.stack[-1] if self.stack else ""

    def hooks(self, name: str, module: nn.Module) -> Iterator[Any]:
        """Register what follows the modules that run."""

        def leave(*_: Any) -> None:
            if self.stack and self.stack[-1] == name:
                self.stack.pop()

        yield module.register_forward_pre_hook(lambda *_: self.stack.append(name))
        yield module.register_forward_hook(leave, always_call=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = str(func._schema.name).split("::")[-1]
        return self.apply(name, func, list(args), kwargs or {})

    def apply(self, name: str, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operation."""
        raise NotImplementedError


def operands(name: str, args: list[Any]) -> list[Tensor]:
    """Return the two operands of a contraction."""
    places = [place for place, _ in PRODUCTS[name]] if name in PRODUCTS else [0, 1]
    return [args[place] for place in places]


def is_product(name: str) -> bool:
    """Return whether an operation sums over pairs of products."""
    return name in PRODUCTS or name == "convolution"
