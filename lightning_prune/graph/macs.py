"""Multiply-accumulate operations of a network, dense, masked or planned."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_prune.graph.flop_formulas import register_missing_formulas
from lightning_prune.graph.forward_pass import call, untouched
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.layers import is_depthwise, is_producer
from lightning_prune.graph.names import plain_name

Values = NDArray[np.float64]
register_missing_formulas()


def count_macs(
    model: nn.Module, example_input: Any, forward: Callable[[nn.Module, Any], Any] | None = None
) -> int:
    """Count the MACs of one forward pass by the convention of ``torch.utils.flop_counter``.

    .. math:: MACs = FLOPs / 2

    Convolutions and matrix products count, those of activations, attention and recurrent layers
    too; norms, activations and additions do not.

    >>> count_macs(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 10, 10))
    21600
    """
    return sum(layer_macs(model, example_input, forward).values())


def layer_macs(
    model: nn.Module, example_input: Any, forward: Callable[[nn.Module, Any], Any] | None = None
) -> dict[str, int]:
    """Count the MACs of every layer; what no layer did (functional calls) stands under ``""``.

    A layer that runs several times in one forward pass counts each time.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    >>> layer_macs(net, torch.zeros(1, 3, 2, 2))
    {'0': 96, '3': 160}
    """
    return measure_layers(model, example_input, forward).macs


class LayerCosts(NamedTuple):
    """What a forward pass costs.

    Attributes:
        macs: Layer name -> MACs; what no layer did stands under ``""``.
        values: Layer name -> how many values it makes and reads.
    """

    macs: dict[str, int]
    values: dict[str, tuple[int, int]]


class _OnlyTotal:
    """Stand for the counter's own tracker, whose hooks on every module cost more than the rest."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


@contextmanager
def _unfused_attention() -> Iterator[None]:
    """Force nn.MultiheadAttention onto its training path, which can be counted."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def measure_layers(
    model: nn.Module, example_input: Any, forward: Callable[[nn.Module, Any], Any] | None = None
) -> LayerCosts:
    """Measure the MACs of every layer, and how many values it makes and reads."""
    counted: dict[str, int] = {}
    values: dict[str, tuple[int, int]] = {}
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _OnlyTotal()  # type: ignore[assignment]
    starts: dict[str, int] = {}

    def before(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            starts[name] = counter.get_total_flops()

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            spent = counter.get_total_flops() - starts[name]
            counted[name] = counted.get(name, 0) + spent // 2
            if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                made, read = output.numel(), inputs[0].numel()
                # What a depthwise layer reads follows the width of what it makes.
                more = (made + read, 0) if is_depthwise(layer) else (made, read)
                earlier = values.get(name, (0, 0))
                values[name] = earlier[0] + more[0], earlier[1] + more[1]

        return hook

    handles = []
    for name, module in model.named_modules():
        if is_producer(module) or is_depthwise(module):
            plain = plain_name(name)
            handles += [
                module.register_forward_pre_hook(before(plain)),
                module.register_forward_hook(after(plain)),
            ]
    try:
        with untouched(model), torch.no_grad(), _unfused_attention(), counter:
            model.eval()
            # The counter asks for the gradient function of a view of a parameter: it has none.
            model.requires_grad_(False)
            (forward or call)(model, example_input)
    finally:
        for handle in handles:
            handle.remove()
    rest = counter.get_total_flops() // 2 - sum(counted.values())
    return LayerCosts(counted | ({"": rest} if rest else {}), values)


@dataclass(frozen=True)
class MacModel:
    """MACs of a network as a function of its groups' widths.

    A layer costs its dense MACs times the kept fraction of its outputs and of its inputs (a
    depthwise layer once), which is what the cut network would have; what belongs to no group
    is constant. A depthwise layer over several groups (what was concatenated) stands under the
    inputs, where fractions add up.

    Attributes:
        layers: Layer name -> dense MACs.
        outputs: Layer name -> group that its output channels (or, depthwise, its channels) are.
        inputs: Layer name -> tuples (group, positions of the layer's input per channel).
        fan_in: Layer name -> number of input positions.
        channels: Group name -> number of channels.
        values: Layer name -> how many values its dense version makes and reads; what a depthwise
            layer reads counts as made (over several groups: what it makes as read).
    """

    layers: Mapping[str, int]
    outputs: Mapping[str, str]
    inputs: Mapping[str, tuple[tuple[str, float], ...]]
    fan_in: Mapping[str, int]
    channels: Mapping[str, int]
    values: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        groups: ChannelGroups,
        example_input: Any,
        forward: Callable[[nn.Module, Any], Any] | None = None,
        costs: LayerCosts | None = None,
    ) -> "MacModel":
        """Measure a network once; the result answers for every choice of widths.

        Args:
            model: The network.
            groups: Its channel groups.
            example_input: Its input.
            forward: How to call it; None: the plain call.
            costs: What ``measure_layers`` returned for it; None: measure now.
        """
        outputs: dict[str, str] = {}
        inputs: dict[str, list[tuple[str, float]]] = {}
        fan_in: dict[str, int] = {}
        carried: dict[str, list[tuple[str, float]]] = {}  # by depthwise layers
        modules = {plain_name(n): m for n, m in model.named_modules()}
        measured = measure_layers(model, example_input, forward) if costs is None else costs
        macs, values = measured.macs, dict(measured.values)
        for group in groups.values():
            if group.products and "" in macs:
                inputs.setdefault("", []).append((group.name, group.products / group.channels))
                fan_in[""] = 1
            for member in group.members:
                layer = modules[member.layer]
                if member.role == "consumer" and is_producer(layer):
                    per_channel = len(member.index) / group.channels
                    inputs.setdefault(member.layer, []).append((group.name, per_channel))
                    dim = dict(member.dims)["weight"]
                    fan_in[member.layer] = layer.get_parameter("weight").shape[dim]
                elif is_producer(layer):
                    outputs[member.layer] = group.name
                elif is_depthwise(layer):
                    per_channel = len(member.index) / group.channels
                    carried.setdefault(member.layer, []).append((group.name, per_channel))
        for name, parts in carried.items():
            width = len(modules[name].get_parameter("weight"))
            covered = round(sum(each * groups[source].channels for source, each in parts))
            if len({source for source, _ in parts}) == 1 and covered >= width:
                outputs[name] = parts[0][0]
            else:
                inputs[name], fan_in[name] = parts, width
                values[name] = values.get(name, (0, 0))[::-1]
        widths = {group.name: group.channels for group in groups.values()}
        sources = {layer: tuple(parts) for layer, parts in inputs.items()}
        return cls(macs, outputs, sources, fan_in, widths, values)

    @property
    def total(self) -> int:
        """Return the MACs of the dense network."""
        return sum(self.layers.values())

    def remaining(self, widths: Mapping[str, int]) -> int:
        """Return the MACs that remain when groups keep these many channels (others all)."""
        return round(sum(self.by_layer(widths).values()))

    def by_layer(self, widths: Mapping[str, int]) -> dict[str, float]:
        """Return the MACs of each layer when groups keep these many channels (others all)."""
        found = {}
        for name, macs in self.layers.items():
            fraction = 1.0
            group = self.outputs.get(name)
            if group is not None and group in widths:
                fraction = widths[group] / self.channels[group]
            if name in self.inputs:
                lost = sum(
                    per_channel * (self.channels[source] - widths[source])
                    for source, per_channel in self.inputs[name]
                    if source in widths
                )
                fraction *= 1 - lost / self.fan_in[name]
            found[name] = macs * fraction
        return found

    def relative_costs(self, names: Sequence[str]) -> dict[str, float]:
        """Return what a channel of each group costs in MACs, the costliest of these groups being 1.

        A channel costs the MACs that the dense network loses with it: in the layers that make,
        carry and read it.

        >>> from lightning_prune.graph.trace import trace_groups
        >>> net = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 8), nn.Linear(8, 1))
        >>> example = torch.zeros(1, 2)
        >>> groups = trace_groups(net, example)
        >>> MacModel.of(net, groups, example).relative_costs(["0", "1"])
        {'0': 1.0, '1': 0.5}
        """
        saved = {
            name: self.total - self.remaining({name: self.channels[name] - 1}) for name in names
        }
        largest = max(saved.values(), default=0)
        return {name: value / largest if largest else 0.0 for name, value in saved.items()}

    def cost_of(self, names: Sequence[str]) -> Callable[[Sequence[int]], int]:
        """Return ``remaining`` as a fast function of the widths of some groups, in this order."""
        costs = self.costs_of(names)

        def cost(widths: Sequence[int]) -> int:
            return round(float(costs(np.asarray(widths, dtype=np.float64)[None])[0]))

        return cost

    def costs_of(self, names: Sequence[str]) -> Callable[[Values], Values]:
        r"""Return the MACs as a function of many choices of widths at once, (N, G) -> (N,).

        A layer's MACs are a product of its output's and its inputs' widths, so that all of them
        together are a quadratic form of the widths w, measured once:

        .. math:: MACs(w) = c + l^T w + w^T Q w
        """
        place = {name: i for i, name in enumerate(names)}
        constant, linear = 0.0, np.zeros(len(names))
        pairs = np.zeros((len(names), len(names)))
        for layer, macs in self.layers.items():
            # Its fraction of the dense MACs: (free + inputs @ w) * (1, or w of its output / C).
            free, inputs = 1.0, np.zeros(len(names))
            for source, per_channel in self.inputs.get(layer, ()):
                if source in place:
                    inputs[place[source]] += per_channel / self.fan_in[layer]
                    free -= per_channel * self.channels[source] / self.fan_in[layer]
            group = self.outputs.get(layer, "")
            if group in place:
                per_output = macs / self.channels[group]
                linear[place[group]] += per_output * free
                pairs[place[group]] += per_output * inputs
            else:
                constant += macs * free
                linear += macs * inputs

        def costs(widths: Values) -> Values:
            found: Values = constant + (widths * (linear + widths @ pairs.T)).sum(1)
            return found

        return costs
