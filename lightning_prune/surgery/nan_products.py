"""Finds of which tensors of a model the operands of its contractions are parts."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_prune.functional.named_tensors import tensors_in
from lightning_prune.surgery.nan_mode import (
    NanMode,
    Product,
    Source,
    is_product,
    operands,
)

_WEIGHT = "_computed_from_weights"


class ContractionFinder(NanMode):
    """Finds of which tensors the operands of contractions are parts."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self.products: list[Product] = []
        self._storages = {
            tensor.untyped_storage().data_ptr(): (name, tensor)
            for name, tensor in reversed(list(tensors.items()))
        }
        for tensor in tensors.values():
            setattr(tensor, _WEIGHT, True)

    def apply(self, name: str, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operation; note what a contraction takes."""
        if is_product(name):
            given = operands(name, args)
            weights = tuple(map(self._is_weight, given))
            sources = [
                self._source(operand) if weight else None
                for operand, weight in zip(given, weights, strict=True)
            ]
            shapes = tuple(operand.shape for operand in given)
            self.products.append(Product(shapes, tuple(sources), weights, self.layer))
        out = func(*args, **kwargs)
        given = [t for t in tensors_in([*args, *kwargs.values()]) if t.numel() > 1]
        if given and all(map(self._is_weight, given)):
            for tensor in tensors_in([out]):
                setattr(tensor, _WEIGHT, True)
        return out

    def _is_weight(self, tensor: Tensor) -> bool:
        return bool(getattr(tensor, _WEIGHT, False))

    def _source(self, operand: Tensor) -> Source | None:
        found = self._storages.get(operand.untyped_storage().data_ptr())
        if found is not None:
            name, tensor = found
            if not tensor.is_contiguous():
                return None
            numbers = torch.arange(tensor.numel())
            shift = operand.storage_offset() - tensor.storage_offset()
            return name, numbers.as_strided(operand.shape, operand.stride(), shift)
        return self._copied(operand)

    def _copied(self, operand: Tensor) -> Source | None:
        """Find the tensor of the running module of which an operand is a copy, or computed."""
        head = f"{self.layer}." if self.layer else ""
        own = {n: t for n, t in self.tensors.items() if n.startswith(head)}
        flat = operand.detach().flatten()
        for name, tensor in own.items():
            if tensor.numel() != flat.numel():
                continue
            values, order = tensor.detach().flatten().sort()
            others, back = flat.sort()
            if torch.equal(values, others):
                index = torch.empty_like(order)
                index[back] = order
                return name, index.view(operand.shape)
        alike = [name for name, tensor in own.items() if tensor.shape == operand.shape]
        if len(alike) == 1:
            return alike[0], torch.arange(flat.numel()).view(operand.shape)
        return None
