"""Means over images of what is read of layer outputs: norms, activations, ranks of maps."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.graph.forward_pass import untouched
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.names import modules_by_name
from lightning_prune.graph.outputs import LayerOutput, layer_outputs
from lightning_prune.observe.reader import channels_second

Values = Callable[[Tensor], Tensor]
"""(B, C, ...) output of a layer -> (B, C) or (B, C, ...), one row an image."""


@dataclass(frozen=True)
class OutputMean:
    """Mean over images of something that is read of a layer's output, as a sum that can be merged.

    Attributes:
        total: (C, ...) float64 sum over images, on the CPU.
        images: Number of images; a layer that runs twice for an image counts it twice.
    """

    total: Tensor
    images: int

    @property
    def value(self) -> Tensor:
        """Return the mean, (C, ...) float64."""
        return self.total / self.images


def source_outputs(
    model: nn.Module,
    groups: ChannelGroups,
    names: Iterable[str],
    example_input: Any,
    forward: Callable[[nn.Module, Any], Any] | None = None,
) -> dict[str, LayerOutput]:
    """Return where the channels of some groups can be watched, by the name of each source.

    Args:
        model: The model.
        groups: Its channel groups.
        names: Which of them.
        example_input: See ``layer_outputs``, as ``forward``.
        forward: How to call the model.
    """
    known = layer_outputs(model, example_input, forward)
    sources = [member.layer for name in names for member in groups[name].sources]
    # Layers that say themselves what their channels are give them as they are.
    return {name: known.get(name, LayerOutput(name, None, False, name)) for name in sources}


class _Sums:
    """What the hooks of one pass over the data add up."""

    def __init__(self, values_of: Values) -> None:
        self.values_of = values_of
        self.means: dict[str, OutputMean] = {}

    @contextmanager
    def watch(self, model: nn.Module, outputs: Mapping[str, LayerOutput]) -> Iterator[None]:
        modules = modules_by_name(model)
        handles = [
            modules[output.watched].register_forward_hook(self._hook(modules[name], output))
            for name, output in outputs.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, layer: nn.Module, output: LayerOutput) -> Callable[..., None]:
        name, activation = output.layer, output.activation

        def add(_module: nn.Module, _inputs: Any, out: Any) -> None:
            if not isinstance(out, Tensor):
                raise ValueError(f"layer {name!r} gives a {type(out).__name__}, not a tensor")
            # A copy: the activation may work in place.
            out = out.detach() if activation is None else activation(out.detach().clone())
            values = self.values_of(channels_second(layer, out))
            seen = OutputMean(values.cpu().double().sum(0), len(values))
            before = self.means.get(name)
            self.means[name] = seen if before is None else _sum(before, seen)

        return add


def collect_outputs(
    model: nn.Module,
    batches: Iterable[Any],
    outputs: Mapping[str, LayerOutput],
    values_of: Values,
    forward: Callable[[nn.Module, Any], Any],
) -> dict[str, OutputMean]:
    """Run a model over batches in evaluation mode and average what is read of layer outputs.

    The mean is over images, whatever the sizes of the batches. Mode, statistics of norms and
    random state of the model are those from before afterwards.

    Args:
        model: The live model, masked or not.
        batches: Batches on the model's device.
        outputs: Layer's name -> where its output appears, from ``source_outputs``.
        values_of: What is read: a criterion's ``output_values``.
        forward: ``(model, batch) -> anything``.

    Returns:
        Layer's name -> mean; empty without a batch.

    Raises:
        ValueError: a layer gives no tensor, or did not run.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]])), net[0].bias.data.zero_()
    >>> outputs = {"0": layer_outputs(net, torch.ones(1, 1))["0"]}
    >>> batches = [torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0]])]
    >>> collect_outputs(net, batches, outputs, torch.abs, nn.Module.__call__)["0"].value.tolist()
    [2.0, 0.0]
    """
    sums, ran = _Sums(values_of), False
    with untouched(model), torch.no_grad(), sums.watch(model, outputs):
        model.eval()
        for batch in batches:
            forward(model, batch)
            ran = True
    missing = [name for name in outputs if name not in sums.means]
    if ran and missing:
        raise ValueError(f"layer {missing[0]!r} did not run in the forward pass")
    return sums.means


def merge_outputs(parts: Sequence[Mapping[str, OutputMean]]) -> dict[str, OutputMean]:
    """Merge what several processes saw of the same layers; one may have seen nothing.

    >>> one, other = OutputMean(torch.tensor([2.0]), 1), OutputMean(torch.tensor([4.0]), 3)
    >>> merge_outputs([{"a": one}, {}, {"a": other}])["a"].value
    tensor([1.5000])
    """
    merged: dict[str, OutputMean] = {}
    for part in parts:
        for name, mean in part.items():
            merged[name] = _sum(merged[name], mean) if name in merged else mean
    return merged


def _sum(a: OutputMean, b: OutputMean) -> OutputMean:
    return OutputMean(a.total + b.total, a.images + b.images)
