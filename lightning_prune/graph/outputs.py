"""What the output of a layer is: what its own norm and activation make of it."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lightning_prune.graph.forward_pass import call, untouched
from lightning_prune.graph.layer_kinds import rule_of
from lightning_prune.graph.names import plain_name

_LAYERS = (_ConvNd, nn.Linear)
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
# Not sigmoids: they gate what another layer makes, or are the model's answer.
_ELEMENTWISE = {
    "celu", "clamp", "clamp_min", "elu", "gelu", "hardswish", "hardtanh", "leaky_relu", "mish",
    "relu", "relu6", "selu", "silu", "softplus", "softsign", "tanh", "threshold",
}  # fmt: skip
# With a parameter for each channel: only the module knows it after a cut.
_BY_CHANNEL = {"prelu"}
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LayerOutput:
    """Where the output of a convolution or linear layer appears.

    Attributes:
        layer: Name of the layer.
        norm: Name of the norm that follows it directly, or None.
        activated: Whether an elementwise activation follows.
        watched: Name of the module whose output is the layer's, but for ``activation``.
        activation: What is still to be applied to it; None: nothing.
    """

    layer: str
    norm: str | None
    activated: bool
    watched: str
    activation: Activation | None = None


@dataclass
class _Stage:
    """A tensor on the way of a layer's output, and who reads it."""

    value: Tensor
    version: int = field(init=False)
    consumers: set[Any] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.version = _version(self.value)

    def holds(self, value: Any) -> bool:
        # The same tensor may be another value by now: `out += identity` joins two layers.
        return self.value is value and self.version == _version(value)


@dataclass
class _Chain:
    """One call of a layer, and what directly followed it."""

    layer: str
    stages: list[_Stage]
    norm: str | None = None
    module: str | None = None
    function: Activation | None = None
    elementwise: bool = True

    @property
    def shape(self) -> torch.Size:
        return self.stages[0].value.shape


@dataclass
class _Recorder(TorchFunctionMode):
    """Follows the outputs of layers through norms and activations, by their identity."""

    chains: list[_Chain] = field(default_factory=list)
    users: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    inside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "").strip("_")
        if name == "get":  # of an attribute, such as the shape
            return func(*args, **kwargs)
        chain = self.find(args[0] if args else kwargs.get("input"))
        read = self.stages_among((args, kwargs))
        out = func(*args, **kwargs)
        module = self.inside[-1] if self.inside else None
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):
            # A module may read as often as it likes; what hands its input on reads nothing.
            consumer = object() if module is None else module
            for stage in read:
                stage.consumers |= set() if stage.holds(out) else {consumer}
        if name not in _ELEMENTWISE | _BY_CHANNEL:
            return out
        if module is not None:
            self.users[module].add("" if chain is None else chain.layer)
        if chain is not None and chain.function is None and isinstance(out, Tensor):
            rest = args[1:]
            options = {key: v for key, v in kwargs.items() if key not in ("input", "out")}
            chain.function = lambda x: func(x, *rest, **options)
            chain.module = module
            chain.stages.append(_Stage(out))
            # Bounds of their own for each channel depend on its place.
            bounds = (v for v in (*rest, *options.values()) if isinstance(v, Tensor))
            chain.elementwise = name in _ELEMENTWISE and all(b.numel() == 1 for b in bounds)
        return out

    def find(self, value: Any) -> _Chain | None:
        """Return the chain that a tensor is the end of."""
        if not isinstance(value, Tensor):
            return None
        return next((c for c in reversed(self.chains) if c.stages[-1].holds(value)), None)

    def stages_among(self, arguments: Any) -> list[_Stage]:
        """Return the stages whose tensors are among the arguments of a function."""
        given = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
        stages = [stage for chain in self.chains for stage in chain.stages]
        return [stage for stage in stages if any(stage.holds(value) for value in given)]

    def watch(self, name: str, module: nn.Module) -> list[Any]:
        """Register the hooks of one layer, norm or other module without children."""

        def enter(*_: Any) -> None:
            self.inside.append(name)

        def leave(_module: nn.Module, inputs: Any, out: Any) -> None:
            self.inside.pop()
            for known in self.chains:
                # A module of more than an activation: its output is not the layer's any more.
                if known.module == name and getattr(out, "shape", None) != known.shape:
                    known.module = None
            if isinstance(module, _LAYERS) and isinstance(out, Tensor):
                self.chains.append(_Chain(name, [_Stage(out)]))
            elif _is_norm(module):
                chain = self.find(inputs[0] if inputs else None)
                self.users[name].add("" if chain is None else chain.layer)
                if chain is not None and chain.norm is None and chain.function is None:
                    chain.norm = name
                    chain.stages.append(_Stage(out))

        return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, _NORMS) or (
        rule_of(module) is not None and hasattr(module, "channel_scale")
    )


def layer_outputs(
    model: nn.Module,
    example_input: Any,
    forward: Callable[[nn.Module, Any], Any] | None = None,
) -> dict[str, LayerOutput]:
    """Find the norm and the activation of every convolution and linear layer by a forward pass.

    Both must follow directly, and nothing else may read what precedes them: what is added or
    joined is not the layer's own. Activations are PyTorch's elementwise ones, as modules or as
    functions. The model is left as it was.

    Args:
        model: Any network.
        example_input: A tensor, or a tuple or dict of arguments.
        forward: How to call the model, ``forward(model, example_input)``; None for the plain call.

    Returns:
        Layer's name -> its output, in the order of the forward pass. Layers whose output changes
        from one call to the next are described by the first.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> [(o.layer, o.norm, o.watched) for o in layer_outputs(net, torch.zeros(1, 3, 8, 8)).values()]
    [('0', '1', '2'), ('3', None, '3')]
    """
    recorder = _Recorder()
    leaves = {
        plain_name(name): module
        for name, module in model.named_modules()
        # A layer whose weight is computed has children.
        if isinstance(module, _LAYERS)
        or _is_norm(module)
        or not any(True for _ in module.children())
    }
    with untouched(model):
        model.eval()
        handles = [hook for n, module in leaves.items() for hook in recorder.watch(n, module)]
        try:
            with torch.no_grad(), recorder:
                (forward or call)(model, example_input)
        finally:
            for handle in handles:
                handle.remove()
    found: dict[str, LayerOutput] = {}
    for chain in recorder.chains:
        found.setdefault(chain.layer, _described(chain, leaves, recorder.users))
    return found


def _version(value: Tensor) -> int:
    """Return how often a tensor was changed in place."""
    return 0 if value.is_inference() else value._version


def _described(
    chain: _Chain, leaves: Mapping[str, nn.Module], users: Mapping[str, set[str]]
) -> LayerOutput:
    layer, own = chain.layer, {chain.layer}
    shared = chain.norm is not None and users[chain.norm] != own
    # A norm of several layers, or values that others read as well: its output is not this one's.
    if shared or len(chain.stages[0].consumers) > 1:
        return LayerOutput(layer, None, False, layer)
    before = chain.norm or layer
    if any(len(stage.consumers) > 1 for stage in chain.stages[:-1]):
        return LayerOutput(layer, chain.norm, False, before)
    if chain.function is not None and chain.module is not None and users[chain.module] == own:
        return LayerOutput(layer, chain.norm, True, chain.module)
    if chain.function is None or not chain.elementwise:
        return LayerOutput(layer, chain.norm, False, before)
    return LayerOutput(layer, chain.norm, True, before, chain.function)
