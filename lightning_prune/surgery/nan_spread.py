"""Follows NaN from a channel's weights to the next sums over channels, and stops it there."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_prune.functional.named_tensors import named_tensors
from lightning_prune.graph.forward_pass import untouched
from lightning_prune.graph.names import plain_name
from lightning_prune.graph.plain_kernels import plain_kernels

_WEIGHT = "_computed_from_weights"
# Places of the operands of a matrix product, each with its contracted dimension.
_PRODUCTS = {
    "mm": ((0, 1), (1, 0)), "addmm": ((1, 1), (2, 0)), "bmm": ((0, 2), (1, 1)),
    "baddbmm": ((1, 2), (2, 1)), "mv": ((0, 1), (1, 0)), "addmv": ((1, 1), (2, 0)),
    "dot": ((0, 0), (1, 0)), "vdot": ((0, 0), (1, 0)), "linear": ((0, -1), (1, 1)),
}  # fmt: skip
_BATCHED = {"bmm", "baddbmm"}
_SUMS = {"sum", "mean", "var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm"}
_BATCH_NORMS = {
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm", "batch_norm", "_batch_norm_no_update",
}  # fmt: skip
_NORMS = {"native_layer_norm", "native_group_norm", "_fused_rms_norm"}
_POINTWISE = {"_prelu_kernel"}

Source = tuple[str, Tensor]
"""Name of a tensor of the model, and for each place of an operand its place in it, flattened."""


class OtherPathError(RuntimeError):
    """The values decide what the network computes: two passes cannot be compared."""


@dataclass(frozen=True)
class _Product:
    """A contraction of the first pass: of what its operands are parts, and where it is."""

    shapes: tuple[torch.Size, ...]
    sources: tuple[Source | None, ...]
    weights: tuple[bool, ...]
    layer: str


class NanSpread:
    """A network whose channels can be filled with NaN, and the columns of weights that meet it.

    A first pass with whole weights finds of which tensors the operands of contractions are parts.
    In later passes NaN runs through everything that works on channels one by one, and is noted and
    set to zero where a contraction, or a statistic, would spread it over all.

    Args:
        net: A copy of a model in eval mode; its weights are changed and restored.
        run: Calls it.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    >>> spread = NanSpread(net, lambda m: m(torch.ones(1, 2)))
    >>> with spread.poisoned({"0.bias": torch.tensor([False, True, False])}) as seen:
    ...     pass
    >>> {name: places.view(2, 3).any(0).tolist() for name, places in seen.places.items()}
    {'2.weight': [False, True, False]}
    """

    def __init__(self, net: nn.Module, run: Callable[[nn.Module], Any]) -> None:
        self.net, self._run = net, run
        self.tensors = {
            plain_name(name): tensor
            for name, tensor in [*net.named_parameters(), *net.named_buffers()]
            if tensor.is_floating_point()
        }
        self.products: list[_Product] = []
        first = _First(self)
        self._pass(first)
        self.products = first.products

    @property
    def read(self) -> set[str]:
        """Return the names of the tensors that contractions take."""
        return {one[0] for product in self.products for one in product.sources if one is not None}

    @property
    def computed(self) -> set[str]:
        """Return the layers in which contractions take weights that are no part of a tensor."""
        return {p.layer for p in self.products if p.sources == (None,) * len(p.sources)}

    @contextmanager
    def poisoned(self, places: dict[str, Tensor]) -> Iterator["Seen"]:
        """Run with NaN at places (masks of tensors' shapes); give what was seen.

        Raises:
            OtherPathError: the network computes something else then.
        """
        kept = {name: self.tensors[name].detach().clone() for name in places}
        seen = Seen(self)
        try:
            with torch.no_grad():
                for name, mask in places.items():
                    self.tensors[name].masked_fill_(mask, torch.nan)
            output = self._pass(seen)
            seen.reaches_output = any(
                bool(t.isnan().any()) for t in named_tensors(output).values() if t.is_floating_point()
            )
            yield seen
        finally:
            with torch.no_grad():
                for name, values in kept.items():
                    self.tensors[name].copy_(values)

    def _pass(self, mode: "_Mode") -> Any:
        with ExitStack() as stack:
            stack.enter_context(untouched(self.net))
            stack.enter_context(torch.no_grad())
            stack.enter_context(plain_kernels(self.net))
            self.net.eval()
            for name, module in self.net.named_modules():
                for handle in mode.hooks(plain_name(name), module):
                    stack.callback(handle.remove)
            stack.enter_context(mode)
            return self._run(self.net)


class _Mode(TorchDispatchMode):
    """Knows which module runs."""

    def __init__(self, spread: NanSpread) -> None:
        super().__init__()
        self.spread = spread
        self.stack: list[str] = []

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


class _First(_Mode):
    """Finds of which tensors the operands of contractions are parts."""

    def __init__(self, spread: NanSpread) -> None:
        super().__init__(spread)
        self.products: list[_Product] = []
        self._storages = {
            tensor.untyped_storage().data_ptr(): (name, tensor)
            for name, tensor in reversed(spread.tensors.items())
        }
        for tensor in spread.tensors.values():
            setattr(tensor, _WEIGHT, True)

    def apply(self, name: str, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if name in _PRODUCTS or name == "convolution":
            places = [n for n, _ in _PRODUCTS[name]] if name in _PRODUCTS else [0, 1]
            operands = [args[n] for n in places]
            flags = tuple(self._is_weight(operand) for operand in operands)
            self.products.append(
                _Product(
                    tuple(operand.shape for operand in operands),
                    tuple(
                        self._source(operand) if flag else None
                        for operand, flag in zip(operands, flags, strict=True)
                    ),
                    flags,
                    self.stack[-1] if self.stack else "",
                )
            )
        out = func(*args, **kwargs)
        given = [t for t in _tensors([*args, *kwargs.values()]) if t.numel() > 1]
        if given and all(map(self._is_weight, given)):
            for tensor in _tensors([out]):
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
        layer = self.stack[-1] if self.stack else ""
        head = f"{layer}." if layer else ""
        own = {n: t for n, t in self.spread.tensors.items() if n.startswith(head)}
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


class Seen(_Mode):
    """What NaN met in one pass.

    Attributes:
        places: Name of a tensor -> mask of its flattened places that contractions paired with NaN.
        faults: Where one operand had NaN and its partner had none.
        mixed: Layers whose statistics NaN would have gone into.
        lost: Layers where NaN met a contraction whose weight is no part of a tensor.
        reaches_output: Whether NaN is in the output.
    """

    def __init__(self, spread: NanSpread) -> None:
        super().__init__(spread)
        self.places: dict[str, Tensor] = {}
        self.faults: dict[str, None] = {}
        self.mixed: set[str] = set()
        self.lost: set[str] = set()
        self.reaches_output = False
        self._number = 0

    @property
    def layer(self) -> str:
        """Return the layer that runs."""
        return self.stack[-1] if self.stack else ""

    def apply(self, name: str, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if name in _PRODUCTS or name == "convolution":
            return self._product(name, func, args, kwargs)
        has_nan = any(_has_nan(t) for t in _tensors([*args, *kwargs.values()]))
        if not has_nan:
            return func(*args, **kwargs)
        if name == "constant_pad_nd":
            return _padded(func(*args, **kwargs), args[0], args[1])
        if name in _SUMS and isinstance(args[0], Tensor):
            args[0] = self._whole_rows(args[0], args[1:], kwargs, func)
            return func(*args, **kwargs)
        if name in _NORMS:
            return self._norm(name, func, args, kwargs)
        if name in _BATCH_NORMS:
            self._vectors(args[0], [v for v in args[1:5] if isinstance(v, Tensor)], 1)
        elif torch.Tag.pointwise in func.tags or name in _POINTWISE:
            return self._pointwise(name, func, args, kwargs)
        return func(*args, **kwargs)

    # --- contractions ---------------------------------------------------------------------

    def _product(self, name: str, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        known = self.spread.products
        place = self._number
        self._number += 1
        at = [n for n, _ in _PRODUCTS[name]] if name in _PRODUCTS else [0, 1]
        if place >= len(known) or known[place].shapes != tuple(args[n].shape for n in at):
            raise OtherPathError(f"other values lead to other operations in layer {self.layer!r}")
        product = known[place]
        if name == "convolution":
            args[0] = self._convolved(product, args)
            return func(*args, **kwargs)
        met: list[Tensor | None] = []
        dims = [dim % args[n].dim() for n, dim in _PRODUCTS[name]]
        for n, dim in zip(at, dims, strict=True):
            args[n], hits = _stopped(args[n], dim, name in _BATCHED)
            met.append(hits)
        for side, other in ((0, 1), (1, 0)):
            hits = met[side]
            if hits is None:
                continue
            source = product.sources[other]
            if source is not None:
                index = source[1].movedim(dims[other], 1 if name in _BATCHED else 0)
                self._note(source[0], index[hits])
            elif any(product.weights):
                if product.sources[side] is None:
                    self.lost.add(self.layer)
            elif met[other] is None or not torch.equal(hits, met[other]):
                if not _is_uniform(args[at[other]], dims[other]):
                    self._fault("a product of activations")
        return func(*args, **kwargs)

    def _convolved(self, product: _Product, args: list[Any]) -> Tensor:
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
            self.places[name] = torch.zeros(self.spread.tensors[name].numel(), dtype=torch.bool)
        self.places[name][index.flatten()] = True

    def _fault(self, what: str) -> None:
        self.faults[f"{what} in layer {self.layer!r}: NaN on one side only"] = None

    # --- what works on channels one by one, and statistics ----------------------------------

    def _pointwise(self, name: str, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        given = [t for t in _tensors([*args, *kwargs.values()]) if t.is_floating_point() and t.dim()]
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
    """Let channels that are NaN everywhere be NaN in their padding too."""
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


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
