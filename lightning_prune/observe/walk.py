"""Walks all batches through a network together, from one layer to the next."""

import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_prune.graph.forward_pass import untouched
from lightning_prune.graph.names import modules_by_name


@dataclass(frozen=True)
class Stop:
    """A layer before which all batches wait.

    Attributes:
        name: Name of the layer.
        layer: The layer.
        inputs: What the layer is about to read, a tensor for each batch.
        twin_inputs: What the layer of the twin reads, a tensor for each batch; empty without one.
    """

    name: str
    layer: nn.Module
    inputs: Sequence[Tensor]
    twin_inputs: Sequence[Tensor] = ()


Visit = Callable[[Stop], None]
Forward = Callable[[nn.Module, Any], Any]


class PathsDifferError(RuntimeError):
    """Batches that do not come to the same layers in the same order."""


class _Abandoned(BaseException):
    """Ends a forward pass that nobody waits for any more; no ``except Exception`` holds it."""


# Which pass a thread makes; numbers of threads are given again to later ones.
_here = threading.local()


class _Traveller:
    """One forward pass in a thread of its own, which runs only while it is let."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self.at: str | None = None
        self.inputs: Tensor | None = None
        self.output: Any = None
        self.error: BaseException | None = None
        self.arrived: set[str] = set()
        self._run = run
        self._abandoned = False
        self._go, self._here = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._travel, daemon=True)

    def _travel(self) -> None:
        _here.traveller = self
        self._go.acquire()
        try:
            if not self._abandoned:
                self.output = self._run()
        except BaseException as error:
            self.error = error
        self.at = self.inputs = None
        self._here.release()

    def on(self) -> None:
        """Run the pass to its next stop, or to its end."""
        if self._thread.ident is None:
            self._thread.start()
        self._go.release()
        self._here.acquire()
        if self.error is not None and not isinstance(self.error, _Abandoned):
            raise self.error

    def wait(self, name: str, inputs: Tensor) -> None:
        """Stop before a layer; called in the thread of the pass."""
        self.at, self.inputs = name, inputs
        self.arrived.add(name)
        self._here.release()
        self._go.acquire()
        self.at = self.inputs = None
        if self._abandoned:
            raise _Abandoned

    def end(self) -> None:
        """Abandon the pass."""
        self._abandoned = True
        if self._thread.ident is not None:
            self._go.release()
            self._thread.join()


@torch.no_grad()
def walk(
    model: nn.Module,
    batches: Sequence[Any],
    forward: Forward,
    visits: Mapping[str, Visit],
    *,
    twin: nn.Module | None = None,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[Any]:
    """Run a network on all batches at once, and stop before layers to look and to change them.

    Each batch runs the forward pass in a thread of its own and waits before every layer that is
    visited until all others have come there; then the visit sees the inputs of all, may change
    that layer, and all continue. One thread computes at a time, in the order of the batches: the
    results are the same in every run. A whole network is treated front to back for the price of
    one forward pass a batch, and whatever it is: nothing is traced. A layer that runs several
    times in a pass is visited before the first.

    Args:
        model: The network; it runs in eval mode without gradients and is left in its mode.
        batches: What ``forward`` takes, at least one. The activations that a forward pass holds at
            a layer are held for all of them at once.
        forward: ``(model, batch) -> anything``.
        visits: Name of a layer -> what is done before it. Layers that no batch comes to are not
            visited.
        twin: A copy that walks beside it, such as the dense network; it stops where the model does.
        context: Makes a context for each pass, such as autocast.

    Returns:
        What ``forward`` gave for each batch.

    Raises:
        PathsDifferError: batches come to different layers.
        KeyError: there is no such layer.
        ValueError: there is no batch.

    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> _ = nn.init.ones_(net[0].weight), nn.init.ones_(net[1].weight)
    >>> def double(stop):
    ...     print(stop.name, [x.item() for x in stop.inputs])
    ...     stop.layer.weight.mul_(2)
    >>> batches = [torch.tensor([[1.0]]), torch.tensor([[3.0]])]
    >>> outputs = walk(net, batches, lambda net, x: net(x), {"0": double, "1": double})
    0 [1.0, 3.0]
    1 [2.0, 6.0]
    >>> [x.item() for x in outputs]
    [4.0, 12.0]
    """
    if not batches:
        raise ValueError("batches: there is none to walk with; pass at least one")
    sides = [model] if twin is None else [model, twin]
    for side in sides:
        unknown = [name for name in visits if name not in modules_by_name(side)]
        if unknown:
            raise KeyError(f"no layer {unknown[0]!r} in a {type(side).__name__}")

    def run(side: nn.Module, batch: Any) -> Callable[[], Any]:
        def passed() -> Any:
            # Both are set for a thread, not for the process.
            with torch.no_grad(), context():
                return forward(side, batch)

        return passed

    travellers = [_Traveller(run(side, batch)) for batch in batches for side in sides]
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        with context():
            passes = torch.get_default_dtype()
        # The process has one for all threads: contexts that change it end in another order than
        # they began, and the last one would leave it changed.
        torch.set_default_dtype(passes)
        for side in sides:
            stack.enter_context(untouched(side))
            side.eval()
            for handle in _stops(side, visits, set(travellers)):
                stack.callback(handle.remove)
        try:
            _lockstep(travellers, modules_by_name(model), visits, len(sides))
        finally:
            for one in travellers:
                one.end()
    return [one.output for one in travellers[:: len(sides)]]


@torch.no_grad()
def paths(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Forward,
    counts: Callable[[nn.Module], bool],
) -> list[int]:
    """Return a number for each batch, equal where batches come to the same layers in one order.

    Args:
        model: The network; it runs in eval mode.
        batches: What ``forward`` takes.
        forward: ``(model, batch) -> anything``.
        counts: Which layers a path is made of.
    """
    layers = {name: layer for name, layer in modules_by_name(model).items() if counts(layer)}
    path: dict[str, None] = {}

    def hook(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _layer, _inputs: path.setdefault(name)

    found = []
    with ExitStack() as stack:
        stack.enter_context(untouched(model))
        model.eval()
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(hook(name)).remove)
        for batch in batches:
            path.clear()
            forward(model, batch)
            found.append(zlib.crc32("\n".join(path).encode()))
    return found


def _stops(
    side: nn.Module, visits: Mapping[str, Visit], travellers: Collection[_Traveller]
) -> list[RemovableHandle]:
    """Have the layers of a network hold the passes that come to them for the first time."""
    modules = modules_by_name(side)

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def stop(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            one: _Traveller | None = getattr(_here, "traveller", None)
            if one is not None and one in travellers and name not in one.arrived:
                one.wait(name, inputs[0] if inputs else next(iter(named.values())))

        return stop

    return [
        modules[name].register_forward_pre_hook(hook(name), with_kwargs=True, prepend=True)
        for name in visits
    ]


def _lockstep(
    travellers: Sequence[_Traveller],
    modules: Mapping[str, nn.Module],
    visits: Mapping[str, Visit],
    sides: int,
) -> None:
    while True:
        for one in travellers:
            one.on()
        places = {one.at for one in travellers}
        if len(places) > 1:
            raise PathsDifferError(
                f"batches come to different layers ({', '.join(sorted(map(str, places)))}): the "
                "forward pass branches on what it reads"
            )
        (name,) = places
        if name is None:
            return
        # What the passes themselves continue with is not for the visit to change.
        seen = [one.inputs for one in travellers if one.inputs is not None]
        twins = seen[1::sides] if sides > 1 else []
        visits[name](Stop(name, modules[name], seen[::sides], twins))
