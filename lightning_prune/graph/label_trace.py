"""Carries labels of channels through one forward pass."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_prune.functional.named_tensors import named_tensors, unknown_types
from lightning_prune.graph.labels import (
    NONE,
    Ids,
    Labels,
    TensorLabels,
    is_uniform,
    labels_of,
    set_labels,
)
from lightning_prune.graph.layer_kinds import is_depthwise, is_producer, rule_of
from lightning_prune.graph.names import plain_name
from lightning_prune.graph.rules import contractions, mixers, movement
from lightning_prune.graph.rules.operation import Operation

_RULES: dict[str, Callable[[Operation], None]] = {
    **movement.RULES,
    **contractions.RULES,
    **mixers.RULES,
}
_REACHES_OUTPUT = "its channels reach the output of the model"
# Views whose writes are followed back to what they are views of.
_VIEWS = {"slice", "select", "view", "_unsafe_view", "permute", "transpose", "t", "unsqueeze",
          "squeeze", "expand", "alias", "detach", "unbind", "split", "split_with_sizes",
          "as_strided"}  # fmt: skip
_BASE = "_channel_labels_base"
_TORCH, _GRAPH = str(Path(torch.__file__).parent), str(Path(__file__).parent)


class _Mode(TorchDispatchMode):
    """Runs every operation, then says what it did to labels."""

    def __init__(self, trace: "LabelTrace") -> None:
        super().__init__()
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


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


@contextmanager
def _unfused_recurrence() -> Iterator[None]:
    """Run LSTM and GRU as the matrix products that they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration")
        with torch.backends.mkldnn.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
            yield


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

    @contextmanager
    def running(self) -> Iterator[None]:
        """Follow everything that the model does in this context."""
        handles = []
        with ExitStack() as stack:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if any(isinstance(m, nn.RNNBase) for m in self._model.modules()):
                stack.enter_context(_unfused_recurrence())
            fast = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
            try:
                self._label_tensors()
                for name, module in self._model.named_modules():
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
                torch.backends.mha.set_fastpath_enabled(fast)
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
        for tensor in tensors:
            found = labels_of(tensor)
            for own in found.axes.values() if found is not None else ():
                self.labels.pin(own, _REACHES_OUTPUT)

    # --- tensors --------------------------------------------------------------------------

    def _label_tensors(self) -> None:
        """Give every position of parameters and floating buffers a label, shared ones once."""
        known: dict[int, dict[int, Any]] = {}
        again = bool(self.labels.axes)
        for name, module in self._model.named_modules(remove_duplicate=False):
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
        labelled = any(labels_of(tensor) is not None for tensor in _tensors(given))
        if not labelled:
            out = func(*args, **kwargs)
            if name in _VIEWS:
                self._remember_base(func, name, arguments, args, kwargs, out)
            return out
        shapes = {}
        if writes and name in ("squeeze_", "unsqueeze_"):
            shapes = {"self": args[0].shape}
        before = labels_of(args[0]) if writes and args and isinstance(args[0], Tensor) else None
        uniform = None
        if writes and before is None and args and isinstance(args[0], Tensor):
            uniform = [dim for dim in range(args[0].dim()) if is_uniform(args[0], dim)]
        out = func(*args, **kwargs)
        bound = {key: default for key, default, _ in arguments}
        bound.update(zip((key for key, _, _ in arguments), args, strict=False))
        bound.update(kwargs)
        op = Operation(
            self.labels,
            func,
            bound,
            out,
            self.modules,
            bool(self._stack) and self._stack[-1][1],
            _place,
            bool(self._stack) and self._stack[-1][2],
            shapes,
            uniform,
        )
        _rule(name, func, op)(op)
        if name in _VIEWS:
            self._remember_base(func, name, arguments, args, kwargs, out)
        if writes and isinstance(out, Tensor):
            self._write_back(op, out, before)
        return out

    def _remember_base(
        self, func: Any, name: str, arguments: Any, args: Any, kwargs: Any, out: Any
    ) -> None:
        bound = {key: default for key, default, _ in arguments}
        bound.update(zip((key for key, _, _ in arguments), args, strict=False))
        bound.update(kwargs)
        for part in _tensors(out if isinstance(out, list | tuple) else [out]):
            setattr(part, _BASE, (name, bound))

    def _write_back(self, op: Operation, view: Tensor, before: TensorLabels | None) -> None:
        """Give what a written tensor is a view of the labels that it has now."""
        base = getattr(view, _BASE, None)
        now = labels_of(view)
        if base is None or now is None or (before is not None and before.axes == now.axes):
            return
        name, bound = base
        source = bound["self"]
        axes = dict(found.axes) if (found := labels_of(source)) is not None else {}
        mapping = _mapping(name, bound, source, view)
        for dim, own in now.axes.items():
            place = mapping.get(dim)
            if place is None:
                self.labels.pin(own, f"its channels are written into a part{op.where()}")
            elif len(own) == source.shape[place]:
                if place in axes:
                    self.labels.join(axes[place], own)
                else:
                    axes[place] = own
            else:
                where = slice(bound["start"], bound["end"], bound["step"])
                whole = axes.get(place, np.full(source.shape[place], NONE, dtype=np.int64)).copy()
                whole[where] = own
                axes[place] = whole
        earlier = labels_of(source)
        set_labels(source, TensorLabels(axes))
        self._write_back(op, source, earlier)


def _mapping(name: str, bound: Mapping[str, Any], source: Tensor, view: Tensor) -> dict[int, int]:
    """Return the axis of a tensor for each axis of a view of it, as far as one stands for one."""
    dims = list(range(source.dim()))
    if name in ("slice", "alias", "detach"):
        return {dim: dim for dim in dims}
    if name == "select":
        taken = bound["dim"] % source.dim()
        return dict(enumerate(dim for dim in dims if dim != taken))
    if name == "permute":
        return {n: dim % source.dim() for n, dim in enumerate(bound["dims"])}
    if name == "t":
        return dict(enumerate(dims[::-1]))
    if name == "transpose":
        first, second = bound["dim0"] % source.dim(), bound["dim1"] % source.dim()
        dims[first], dims[second] = dims[second], dims[first]
        return dict(enumerate(dims))
    if name in ("view", "_unsafe_view", "unsqueeze", "squeeze"):
        old = [dim for dim in dims if source.shape[dim] != 1]
        new = [dim for dim in range(view.dim()) if view.shape[dim] != 1]
        if [source.shape[dim] for dim in old] == [view.shape[dim] for dim in new]:
            return dict(zip(new, old, strict=True))
    return {}


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


def _place() -> str:
    """Return the file and line in a user's code that runs now; empty where only PyTorch's runs."""
    frame: FrameType | None = sys._getframe(1)
    inside = True  # the frames of the rules themselves come first
    while frame is not None:
        file = frame.f_code.co_filename
        own = file.startswith(_GRAPH)
        if own and not inside:
            return ""
        if not own:
            inside = False
            if not file.startswith((_TORCH, "<")):
                return f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
