"""A pass with NaN in some channels: where contractions meet it, and where only one side has it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_prune.functional.named_tensors import tensors_in
from lightning_prune.surgery.nan_mode import (
    PRODUCTS,
    NanMode,
    Product,
    is_product,
    operands,
)

_BATCHED = {"bmm", "baddbmm"}
_SUMS = {"sum", "mean", "var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm"}
_BATCH_NORMS = {
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm", "batch_norm", "_batch_norm_no_update",
}  # fmt: skip
_NORMS = {"native_layer_norm", "native_group_norm", "_fused_rms_norm"}
_POINTWISE = {"_prelu_kernel"}


class OtherPathError(RuntimeError):
    """The values decide what the network computes: two passes cannot be compared."""


class Seen(NanMode):
    """What NaN met in one pass.

    Attributes:
        places: Name of a tensor -> mask of its flattened places that contractions paired with NaN.
        faults: Where one operand had NaN and its partner had none.
        mixed: Layers whose statistics NaN would have gone into.
        lost: Layers where NaN met a contraction whose weight is no part of a tensor.
        reaches_output: Whether NaN is in the output.
    """

    def __init__(self, tensors: Mapping[str, Tensor], products: Sequence[Product]) -> None:
        super().__init__(tensors)
        self.places: dict[str, Tensor] = {}
        self.faults: dict[str, None] = {}
        self.mixed: set[str] = set()
        self.lost: set[str] = set()
        self.reaches_output = False
        self._products, self._number = products, 0

    def apply(self, name: str, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operation, and keep NaN in the channels that have it.

        Raises:
            OtherPathError: the pass computes something else than the first one.
        """
        if is_product(name):
            return self._product(name, func, args, kwargs)
        has_nan = any(_has_nan(t) for t in tensors_in([*args, *kwargs.values()]))
        if not has_nan:
            return func(*args, **kwargs)
        if name == "constant_pad_nd":
            return _padded(func(*args, **kwargs), args[0], args[1])
        if name in _SUMS and isinstance(args[0], Tensor):
            args[0] = self._whole_rows(args[0], args[1:], kwargs, func)
            return func(*args, **kwargs)
        if name == "_weight_norm_interface":  # lengths may run over rows too; zeros add nothing
            nan = args[0].isnan()
            args[0] = args[0].masked_fill(nan, 0.0)
            out = func(*args, **kwargs)
            return (out[0].masked_fill(nan, torch.nan), *out[1:])
        if name in _NORMS:
            return self._norm(name, func, args, kwargs)
        if name in _BATCH_NORMS:
            self._vectors(args[0], [v for v in args[1:5] if isinstance(v, Tensor)], 1)
        elif torch.Tag.pointwise in func.tags or name in _POINTWISE:
            return self._pointwise(name, func, args, kwargs)
        return func(*args, **kwargs)

    # --- contractions ---------------------------------------------------------------------

    def _product(self, name: str, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        number, shapes = self._number, tuple(given.shape for given in operands(name, args))
        self._number += 1
        if number >= len(self._products) or self._products[number].shapes != shapes:
            raise OtherPathError(f"other values lead to other operations in layer {self.layer!r}")
        product = self._products[number]
        if name == "convolution":
            args[0] = self._convolved(product, args)
            return func(*args, **kwargs)
        met: list[Tensor | None] = []
        places = [place for place, _ in PRODUCTS[name]]
        dims = [dim % args[place].dim() for place, dim in PRODUCTS[name]]
        for place, dim in zip(places, dims, strict=True):
            args[place], hits = _stopped(args[place], dim, name in _BATCHED)
            met.append(hits)
        for side, other in ((0, 1), (1, 0)):
            mine, its, source = met[side], met[other], product.sources[other]
            if mine is None:
                continue
            if source is not None:
                index = source[1].movedim(dims[other], 1 if name in _BATCHED else 0)
                self._note(source[0], index[mine])
            elif any(product.weights):
                if product.sources[side] is None:
                    self.lost.add(self.layer)
            elif (its is None or not torch.equal(mine, its)) and not _is_uniform(
                args[places[other]], dims[other]
            ):
                self._fault("a product of activations")
        return func(*args, **kwargs)

    def _convolved(self, product: Product, args: list[Any]) -> Tensor:
        """Note and remove channels of NaN, but for groups that hold nothing else."""
        source: Tensor = args[0]
        if not _has_nan(source):
            return source
        transposed, groups = args[6], args[8]
        nan = source.isnan()
        rest = [dim for dim in range(source.dim()) if dim != 1]
        channels = nan.any(dim=rest).view(groups, -1) if rest else nan.view(groups, -1)
        partial = channels & ~channels.all(1, keepdim=True)
        if not partial.any():
            return source
        weight = product.sources[1]
        if weight is None:
            self.lost.add(self.layer)
        elif transposed:
            self._note(weight[0], weight[1][partial.flatten()])
        else:
            rows = weight[1].reshape(groups, -1, *weight[1].shape[1:])
            self._note(weight[0], rows.transpose(1, 2)[partial])
        wide = partial.flatten().view(1, -1, *[1] * (source.dim() - 2))
        return source.masked_fill(nan & wide, 0.0)

    def _note(self, name: str, index: Tensor) -> None:
        if name not in self.places:
            self.places[name] = torch.zeros(self.tensors[name].numel(), dtype=torch.bool)
        self.places[name][index.flatten()] = True

    def _fault(self, what: str) -> None:
        self.faults[f"{what} in layer {self.layer!r}: NaN on one side only"] = None

    # --- what works on channels one by one, and statistics ----------------------------------

    def _pointwise(self, name: str, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        given = [
            t for t in tensors_in([*args, *kwargs.values()]) if t.is_floating_point() and t.dim()
        ]
        masks = [(t, t.isnan()) for t in given]
        for first, mask in masks:
            for second, other in masks:
                if first is not second and mask.any() and self._differs(mask, second, other):
                    self._fault(name)
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and out.is_floating_point():
            for _, mask in masks:
                if mask.dim() <= out.dim() and mask.any():
                    out.masked_fill_(mask.expand(out.shape), torch.nan)
        return out

    def _differs(self, mask: Tensor, other: Tensor, other_mask: Tensor) -> bool:
        """Return whether an axis has NaN at places where the partner has values of its own."""
        for back in range(1, min(mask.dim(), other.dim()) + 1):
            size = mask.shape[-back]
            if size == 1 or other.shape[-back] != size:
                continue
            mine, its = _along(mask, mask.dim() - back), _along(other_mask, other.dim() - back)
            if mine.all() or not mine.any() or not bool((mine & ~its).any()):
                continue
            if not _is_uniform(other, other.dim() - back):
                return True
        return False

    def _vectors(self, source: Tensor, vectors: Sequence[Tensor], dim: int) -> None:
        mine = _along(source.isnan(), dim)
        for vector in vectors:
            if vector.numel() == len(mine) and bool((mine & ~vector.flatten().isnan()).any()):
                self._fault("a norm")

    def _norm(self, name: str, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        source: Tensor = args[0]
        group = name == "native_group_norm"
        start = 1 if group else 2
        vectors = [v for v in args[start : start + 2] if isinstance(v, Tensor)]
        nan = source.isnan()
        if group or len(args[1]) == 1:
            self._vectors(source, vectors, 1 if group else source.dim() - 1)
        self.mixed.add(self.layer)
        args[0] = source.masked_fill(nan, 0.0)
        out = func(*args, **kwargs)
        return (out[0].masked_fill(nan, torch.nan), *out[1:])

    def _whole_rows(
        self, source: Tensor, args: Sequence[Any], kwargs: dict[str, Any], func: Any
    ) -> Tensor:
        """Set NaN to zero where it is only a part of what is summed."""
        names = [a.name for a in func._schema.arguments][1:]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        dims = given.get("dim")
        if dims is None or dims == []:
            dims = list(range(source.dim()))
        dims = [dims] if isinstance(dims, int) else list(dims)
        nan = source.isnan()
        whole = nan
        for dim in dims:
            whole = whole.all(dim, keepdim=True)
        partial = nan & ~whole
        if not partial.any():
            return source
        self.mixed.add(self.layer)
        return source.masked_fill(partial, 0.0)


def _stopped(tensor: Tensor, dim: int, batched: bool) -> tuple[Tensor, Tensor | None]:
    """Set NaN to zero in rows that it is a part of; return along which places it was."""
    nan = tensor.isnan()
    partial = nan & ~nan.all(dim, keepdim=True)
    if not partial.any():
        return tensor, None
    free = [d for d in range(tensor.dim()) if d != dim and not (batched and d == 0)]
    hits = partial.any(dim=free) if free else partial
    return tensor.masked_fill(partial, 0.0), hits


def _padded(out: Tensor, source: Tensor, amounts: Sequence[int]) -> Tensor:
    """Fill the padding of channels that are NaN everywhere with NaN too."""
    whole = source.isnan()
    for number in range(len(amounts) // 2):
        if amounts[2 * number] or amounts[2 * number + 1]:
            whole = whole.all(source.dim() - 1 - number, keepdim=True)
    return out.masked_fill(whole, torch.nan) if whole.any() else out


def _along(mask: Tensor, dim: int) -> Tensor:
    rest = [d for d in range(mask.dim()) if d != dim]
    return mask.any(dim=rest) if rest else mask


def _is_uniform(tensor: Tensor, dim: int) -> bool:
    values = tensor.nan_to_num(0.0)
    return bool((values == values.narrow(dim, 0, 1)).all())


def _has_nan(tensor: Any) -> bool:
    return tensor.is_floating_point() and bool(tensor.isnan().any())
