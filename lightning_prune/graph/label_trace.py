"""Carries labels of channels through one forward pass."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_prune.functional.named_tensors import named_tensors, tensors_in, unknown_types
from lightning_prune.graph.drawn_values import mark_drawn
from lightning_prune.graph.labels import (
    Ids,
    Labels,
    TensorLabels,
    is_uniform,
    labels_of,
    pins_of_readers,
    set_labels,
)
from lightning_prune.graph.layer_kinds import is_depthwise, is_producer, rule_of
from lightning_prune.graph.names import plain_name
from lightning_prune.graph.plain_kernels import plain_kernels
from lightning_prune.graph.rules import contractions, mixers, movement
from lightning_prune.graph.rules.operation import Operation
from lightning_prune.graph.user_code import place_in_code
from lightning_prune.graph.view_bases import VIEWS, remember_base
from lightning_prune.graph.written_views import write_back

_RULES: dict[str, Callable[[Operation], None]] = {
    **movement.RULES,
    **contractions.RULES,
    **mixers.RULES,
}
_REACHES_OUTPUT = "its channels reach the output of the model"


class _Mode(TorchDispatchMode):
    """Runs every operation, then says what it did to labels."""

    def __init__(self, trace: "LabelTrace") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._trace = trace

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._trace.suspended:
            return func(*args, **kwargs)
        return self._trace.run(func, args, kwargs)


@lru_cache(maxsize=4096)
def _signature(func: Any) -> tuple[str, tuple[tuple[str, Any, bool], ...], bool]:
    schema = func._schema
    arguments = tuple(
        (a.name, a.default_value if a.has_default_value() else None, bool(a.is_write))
        for a in schema.arguments
    )
    return schema.name.split("::")[-1], arguments, any(a.is_write for a in schema.arguments)


def _bound(
    arguments: tuple[tuple[str, Any, bool], ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of an operation by name, those not given as well."""
    bound = {key: default for key, default, _ in arguments}
    bound.update(zip((key for key, _, _ in arguments), args, strict=False))
    bound.update(kwargs)
    return bound


class LabelTrace:
    """Labels of a model's parameters and buffers, carried through forward passes.

    Attributes:
        labels: What was learned.
        order: Names of the layers in the order in which the passes end them.
        suspended: Whether operations are not followed: within layers that have a rule of their own.
    """

    def __init__(self, model: nn.Module) -> None:
        self.labels = Labels()
        self.order: dict[str, None] = {}
        self.suspended = 0
        self._model = model
        self._stack: list[tuple[str, bool, bool]] = []
        self._based: list[Tensor] = []
        self._touched: set[int] = set()

    @contextmanager
    def running(self, copy: nn.Module | None = None) -> Iterator[None]:
        """Follow everything that the model does in this context.

        Args:
            copy: Followed instead of the model, under the names and labels of the model's tensors.
        """
        model = self._model if copy is None else copy
        handles = []
        with ExitStack() as stack:
            stack.enter_context(plain_kernels(model))
            try:
                self._label_tensors(model)
                for name, module in model.named_modules():
                    leaf = not any(True for _ in module.children())
                    counted = is_producer(module) or is_depthwise(module)
                    handles += [
                        module.register_forward_pre_hook(
                            self._enter(plain_name(name), leaf, counted)
                        ),
                        module.register_forward_hook(
                            self._leave(plain_name(name)), always_call=True
                        ),
                    ]
                stack.enter_context(_Mode(self))
                yield
            finally:
                for handle in handles:
                    handle.remove()
                for tensor in self._based:
                    set_labels(tensor, None)
                self._stack.clear()

    def output(self, output: Any) -> None:
        """Pin what reaches the output of the model.

        Raises:
            ValueError: no tensor is found in the output, or no layer has a part in it.
        """
        tensors = named_tensors(output).values()
        if not tensors:
            kinds = ", ".join(unknown_types(output)) or type(output).__name__
            raise ValueError(
                f"no tensor is found in its output, of type {kinds}: let forward return tensors, "
                "lists, dicts, dataclasses or named tuples of them"
            )
        self._pin(tensors)
        for tensor in tensors:
            found = labels_of(tensor)
            for own in found.axes.values() if found is not None else ():
                self.labels.must_stay(own, _REACHES_OUTPUT)

    def used(self) -> frozenset[str]:
        """Return the names of the modules of whose tensors the passes have used some."""
        return frozenset(
            plain_name(name)
            for name, module in self._model.named_modules()
            for tensor in (*module._parameters.values(), *module._buffers.values())
            if id(tensor) in self._touched
        )

    @property
    def leaves_tensors(self) -> bool:
        """Return whether no pass has used some of the model's tensors."""
        return any(id(tensor) not in self._touched for tensor in self._based)

    def _pin(self, read: Iterable[Tensor]) -> None:
        for tensor in read:
            for own, reason in pins_of_readers(tensor):
                self.labels.pin(own, reason)

    # --- tensors --------------------------------------------------------------------------

    def _label_tensors(self, model: nn.Module) -> None:
        """Label every position of parameters and floating buffers, shared ones once."""
        known: dict[int, dict[int, Any]] = {}
        again = bool(self.labels.axes)
        for name, module in model.named_modules():
            owned = [*module._parameters.items(), *module._buffers.items()]
            for key, tensor in owned:
                if tensor is None or not (tensor.is_floating_point() or tensor.is_complex()):
                    continue
                if id(tensor) in known:
                    if not again:
                        self._alias(plain_name(name), key, known[id(tensor)])
                    continue
                if again:
                    axes = self._earlier(plain_name(name), key)
                else:
                    axes = {
                        dim: self.labels.axis(plain_name(name), key, dim, size)
                        for dim, size in enumerate(tensor.shape)
                        if size > 1
                    }
                known[id(tensor)] = axes
                set_labels(tensor, TensorLabels(axes, True))
                self._based.append(tensor)

    def _alias(self, owner: str, key: str, axes: Mapping[int, Any]) -> None:
        """Note that a module holds a tensor that another one holds too."""
        for dim, own in axes.items():
            self.labels.alias(owner, key, dim, own)

    def _earlier(self, owner: str, key: str) -> dict[int, Any]:
        return {
            a.dim: np.arange(a.first, a.first + a.size, dtype=np.int64)
            for a in self.labels.axes
            if a.owner == owner and a.tensor == key
        }

    def axis(self, module: nn.Module, tensor: str, dim: int) -> Ids:
        """Return the labels of an axis of a tensor of the module that is running.

        Whole numbers by channel (the group of each) have labels from the first time on that a rule
        asks for them.

        Args:
            module: The innermost module, as a rule is given it.
            tensor: Name of its parameter or buffer.
            dim: The axis.

        Raises:
            ValueError: the module has no such tensor.
        """
        value = module._parameters.get(tensor, module._buffers.get(tensor))
        if value is None or not -value.dim() <= dim < value.dim():
            raise ValueError(
                f"{type(module).__name__} has no parameter or buffer {tensor!r} with an axis "
                f"{dim}: name one that it has"
            )
        owner, dim = self.modules[-1], dim % value.dim()
        known = labels_of(value)
        if known is not None and dim in known.axes:
            return known.axes[dim]
        earlier: dict[int, Ids] = self._earlier(owner, tensor)
        if dim not in earlier:
            return self.labels.axis(owner, tensor, dim, value.shape[dim])
        return earlier[dim]

    # --- modules --------------------------------------------------------------------------

    def _enter(self, name: str, leaf: bool, counted: bool) -> Callable[..., None]:
        def hook(module: nn.Module, _inputs: Any) -> None:
            self._stack.append((name, leaf, counted))
            if rule_of(module) is not None:
                self.suspended += 1

        return hook

    def _leave(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            rule = rule_of(module)
            if rule is not None:
                self.suspended -= 1
                if not self.suspended:
                    with torch.utils._python_dispatch._disable_current_modes():
                        rule(module, self, inputs, output)
            if self._stack and self._stack[-1][0] == name:
                self._stack.pop()
            self.order.setdefault(name)
            if isinstance(output, Tensor):
                found = labels_of(output)
                if found is not None and not found.weight:
                    self.labels.outputs[name] = list(found.axes.items())
                else:
                    self.labels.outputs.pop(name, None)

        return hook

    @property
    def modules(self) -> tuple[str, ...]:
        """Return the names of the modules that are running, the outermost first."""
        return tuple(name for name, _, _ in self._stack)

    # --- operations -----------------------------------------------------------------------

    def run(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run an operation and carry the labels of what goes in to what comes out."""
        name, arguments, writes = _signature(func)
        given = [*args, *kwargs.values()]
        self._pin(tensors_in(given))
        known = [id(tensor) for tensor in tensors_in(given) if labels_of(tensor) is not None]
        self._touched.update(known)
        labelled = bool(known)
        if not labelled:
            out = func(*args, **kwargs)
            if name in VIEWS:
                remember_base(name, _bound(arguments, args, kwargs), out)
            read = [*args, *(value for key, value in kwargs.items() if key != "out")]
            mark_drawn(name, read, out)
            return out
        shapes = {}
        if writes and name in ("squeeze_", "unsqueeze_"):
            shapes = {"self": args[0].shape}
        before = labels_of(args[0]) if writes and args and isinstance(args[0], Tensor) else None
        uniform = None
        if writes and before is None and args and isinstance(args[0], Tensor):
            uniform = [dim for dim in range(args[0].dim()) if is_uniform(args[0], dim)]
        out = func(*args, **kwargs)
        bound = _bound(arguments, args, kwargs)
        op = Operation(
            self.labels,
            func,
            bound,
            out,
            self.modules,
            bool(self._stack) and self._stack[-1][1],
            place_in_code,
            bool(self._stack) and self._stack[-1][2],
            shapes,
            uniform,
        )
        _rule(name, func, op)(op)
        if name in VIEWS:
            remember_base(name, bound, out)
        mark_drawn(name, (), out)
        if writes and isinstance(out, Tensor):
            write_back(op, out, before)
        return out


def _rule(name: str, func: Any, op: Operation) -> Callable[[Operation], None]:
    if name in ("max", "min") and isinstance(op.args.get("other"), Tensor):
        return mixers.pointwise
    found = _RULES.get(name)
    if found is None and name.endswith("_"):
        found = _RULES.get(name[:-1])
    if found is not None:
        return found
    if mixers.is_pointwise(func):
        return mixers.pointwise
    return mixers.unknown
