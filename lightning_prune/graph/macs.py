"""Multiply-accumulate operations of a network, dense, masked or planned."""

from collections import defaultdict
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
from lightning_prune.graph.kept_fraction import KeptFraction, Monomials
from lightning_prune.graph.layers import is_depthwise, is_producer, output_dims
from lightning_prune.graph.names import plain_name
from lightning_prune.graph.weight_axes import product_parts, weight_axes

Values = NDArray[np.float64]
register_missing_formulas()
_PAIR = 2


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
    is constant. Fractions of what was concatenated add up, those of groups that are factors of the
    same rows (heads, and the width of each) multiply.

    Attributes:
        layers: Layer name -> dense MACs.
        outputs: Layer name -> kept fraction of its outputs (or, depthwise, of its channels).
        inputs: Layer name -> kept fraction of its inputs; of ``""`` that of all that no layer does.
        channels: Group name -> number of channels.
        values: Layer name -> how many values its dense version makes and reads; what a depthwise
            layer reads counts as made.
    """

    layers: Mapping[str, int]
    outputs: Mapping[str, KeptFraction]
    inputs: Mapping[str, KeptFraction]
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
        held: dict[tuple[str, int, int], list[tuple[str, Tensor]]] = {}
        modules = {plain_name(n): m for n, m in model.named_modules()}
        measured = measure_layers(model, example_input, forward) if costs is None else costs
        users: dict[int, list[str]] = defaultdict(list)
        for name, module in modules.items():
            weight = module._parameters.get("weight")
            if weight is not None and (is_producer(module) or is_depthwise(module)):
                users[id(weight)].append(name)
        for group in groups.values():
            for member in group.members:
                for axis in weight_axes(modules, member, users):
                    held.setdefault(axis, []).append((group.name, member.index))
        ends: dict[bool, dict[str, KeptFraction]] = {False: {}, True: {}}
        for (name, dim, size), parts in held.items():
            is_input = dim != dict(output_dims(modules[name]))["weight"]
            ends[is_input][name] = KeptFraction.of(size, parts)
        products = product_parts(groups)
        if products and "" in measured.macs:
            ends[True][""] = KeptFraction(1, products)
        widths = {group.name: group.channels for group in groups.values()}
        return cls(measured.macs, ends[False], ends[True], widths, measured.values)

    def groups_of(self, layer: str) -> tuple[str, ...]:
        """Return the groups whose widths a layer's MACs depend on."""
        ends = (end[layer] for end in (self.outputs, self.inputs) if layer in end)
        return tuple(dict.fromkeys(name for fraction in ends for name in fraction.names))

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
            outputs = self.outputs.get(name)
            only = None if outputs is None else outputs.only
            if outputs is not None and only is None:
                fraction = outputs.at(widths, self.channels)
            elif only is not None and only in widths:
                fraction = widths[only] / self.channels[only]
            if name in self.inputs:
                fraction *= self.inputs[name].at(widths, self.channels)
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
        together are a polynomial of the widths w, measured once: a quadratic form

        .. math:: MACs(w) = c + l^T w + w^T Q w

        and, where groups are factors of the same rows, products of three and four widths.
        """
        place = {name: i for i, name in enumerate(names)}
        constant, linear = 0.0, np.zeros(len(names))
        pairs = np.zeros((len(names), len(names)))
        higher: dict[tuple[int, ...], float] = defaultdict(float)
        for layer, macs in self.layers.items():
            for made, per_output in self._output_monomials(layer, macs, place):
                inputs = self.inputs.get(layer)
                read = [((), 1.0)] if inputs is None else inputs.monomials(place, self.channels)
                for more, fraction in read:
                    key = (*made, *more)
                    value = per_output * fraction
                    if not key:
                        constant += value
                    elif len(key) == 1:
                        linear[key] += value
                    elif len(key) == _PAIR:
                        pairs[key] += value
                    else:
                        higher[tuple(sorted(key))] += value

        def costs(widths: Values) -> Values:
            found: Values = constant + (widths * (linear + widths @ pairs.T)).sum(1)
            for key, value in higher.items():
                found += value * widths[:, key].prod(1)
            return found

        return costs

    def _output_monomials(self, layer: str, macs: int, place: Mapping[str, int]) -> Monomials:
        """Yield a layer's MACs as a polynomial of the widths of its outputs."""
        outputs = self.outputs.get(layer)
        if outputs is None or not place.keys() & set(outputs.names):
            yield (), macs
        elif outputs.only is not None:
            yield (place[outputs.only],), macs / self.channels[outputs.only]
        else:
            for key, fraction in outputs.monomials(place, self.channels):
                yield key, macs * fraction
