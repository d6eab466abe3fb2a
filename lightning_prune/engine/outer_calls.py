"""Which network a training step calls, and what with."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_prune.graph.names import modules_by_name


class Call(NamedTuple):
    """One call of a network.

    Attributes:
        layer: Name of the module that was called; "": the whole.
        inputs: Its arguments.
        named: Those that were passed by name.
        outputs: What it gave.
    """

    layer: str
    inputs: tuple[Any, ...]
    named: Mapping[str, Any]
    outputs: Any


@dataclass
class _Depth:
    now: int = 0


@contextmanager
def outer_calls(module: nn.Module, layer: str | None = None) -> Iterator[list[Call]]:
    """Record the calls of modules with parameters that no other such call is the caller of.

    Nothing within a compiled module is looked at: compiled code does not call hooks.

    Args:
        module: What is watched; it is left without hooks afterwards.
        layer: Only the calls of this one; None: of all.
    """
    calls: list[Call] = []
    depth = _Depth()

    def enter(_part: nn.Module, _inputs: Any) -> None:
        depth.now += 1

    def leave(name: str) -> Any:
        def hook(part: nn.Module, inputs: Any, named: Any, outputs: Any) -> None:
            depth.now -= 1
            if depth.now == 0:
                calls.append(Call(name, inputs, named, outputs))

        return hook

    with ExitStack() as hooks:
        for name, part in _watched(module, layer):
            for handle in (
                part.register_forward_pre_hook(enter),
                part.register_forward_hook(leave(name), with_kwargs=True),
            ):
                hooks.callback(handle.remove)
        yield calls


def _watched(module: nn.Module, layer: str | None) -> Iterator[tuple[str, nn.Module]]:
    if layer is not None:
        yield layer, modules_by_name(module)[layer]
        return
    compiled: list[str] = []
    for name, part in module.named_modules():
        if any(name.startswith(f"{outer}.") for outer in compiled):
            continue
        if "_orig_mod" in part._modules:
            compiled.append(name)
        if next(part.parameters(), None) is not None:
            yield name, part


def main_call(module: nn.Module, calls: list[Call]) -> Call:
    """Return the call whose outputs are compared: of the module with the most parameters.

    Args:
        module: What was watched.
        calls: Those of one training step.

    Raises:
        ValueError: there is none, or its inputs were computed by other layers of the module.
    """
    advice = "call self(inputs), or one network, in training_step"
    kind = type(module).__name__
    if not calls:
        raise ValueError(
            f"training_step of {kind} calls no module that has parameters, so that there are no "
            f"outputs to compare with those of the dense network: {advice}"
        )
    sizes = {n: sum(p.numel() for p in part.parameters()) for n, part in module.named_modules()}
    found: Call = max(reversed(calls), key=lambda call: sizes[call.layer])
    leaves = [v for v in tree_leaves((found.inputs, dict(found.named))) if isinstance(v, Tensor)]
    if any(value.grad_fn is not None for value in leaves):
        raise ValueError(
            f"training_step of {kind} calls {found.layer or 'the module'} with what other layers "
            f"of it computed, so that the dense network cannot be given the same inputs: {advice}"
        )
    return found
