"""What must be timed to know how long a network takes at any widths."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from lightning_prune.export.batches import with_batch
from lightning_prune.functional.widths.kernel_times import grid_of
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.latency.kernel_graphs import kernel_graph
from lightning_prune.latency.units import Unit, layer_units
from lightning_prune.latency.whole_models import random_widths, whole_model

BLOCK = 8
"""Channels that processors compute at once in 32 bits, at least (AVX2; AVX-512: 16)."""


@dataclass(frozen=True)
class LatencyJob:
    """Models to be timed, and what their times will say.

    Attributes:
        layers: Layer name -> place of its kernel.
        grids: For each kernel the widths at its outputs and at its inputs.
        files: For each kernel the place in ``kernels`` for each width at its inputs.
        widths: For each of ``whole`` the widths of the groups; the first is the dense network.
        kernels: ONNX models of kernels.
        whole: ONNX models of whole networks.
    """

    layers: Mapping[str, int]
    grids: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
    files: Sequence[Sequence[int]]
    widths: Sequence[Mapping[str, int]]
    kernels: Sequence[bytes]
    whole: Sequence[bytes]

    def description(self) -> dict[str, Any]:
        """Return all but the models, as plain data."""
        own = asdict(self)
        return {name: own[name] for name in ("layers", "grids", "files", "widths")}


def latency_job(
    module: nn.Module,
    groups: ChannelGroups,
    names: Sequence[str],
    example_input: Any,
    *,
    plans: int = 5,
    points: int = 8,
    seed: int = 0,
    progress: Callable[[Sequence[Any], str], Iterable[Any]] = lambda items, _: items,
) -> LatencyJob:
    """Prepare what is timed: kernels of all shapes at a grid of widths, and some whole networks.

    Args:
        module: The dense network; it is left as it is.
        groups: Its channel groups.
        names: Groups whose widths will vary.
        example_input: Its input; one sample of its shape is what is timed.
        plans: Whole networks besides the dense one, of random widths, at least 3: what is left
            beside the kernels is fitted to them.
        points: Widths of a kernel at each of its ends.
        seed: Of the random widths.
        progress: ``(items, title) -> items``; shows how far it has come.

    Raises:
        ModuleNotFoundError: the ``onnx`` extra is not installed.
        ValueError: the network cannot be converted to ONNX.
    """
    example_input = with_batch(example_input, 1)
    units = layer_units(module, example_input)
    places: dict[Unit, int] = {}
    layers = {name: places.setdefault(unit, len(places)) for name, unit in units.items()}
    grids: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    files: list[list[int]] = []
    kernels: list[bytes] = []
    for unit in places:
        outputs = grid_of(unit.outputs, BLOCK, points)
        inputs = (1,) if unit.kind == "depthwise" else grid_of(unit.inputs, BLOCK, points)
        grids.append((outputs, inputs))
        files.append(list(range(len(kernels), len(kernels) + len(inputs))))
        kernels += [kernel_graph(unit, width, outputs) for width in inputs]
    random = torch.Generator().manual_seed(seed)
    widths: list[dict[str, int]] = [{}]
    widths += [random_widths(groups, names, BLOCK, random) for _ in range(plans)]
    whole = [
        whole_model(module, groups, own, example_input)
        for own in progress(widths, "Converting networks")
    ]
    return LatencyJob(layers, grids, files, widths, kernels, whole)
