"""Reads the channel vectors of objects out of layer outputs while a forward pass runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.functional.matching import cell_of
from lightning_prune.functional.objects import ObjectSamples
from lightning_prune.graph.names import modules_by_name

Cells = dict[tuple[int, int], tuple[Tensor, Tensor]]
"""Row and column of each object, by height and width of the feature map."""


class LayerReader:
    """Hooks that read layers at the objects of a batch.

    Where the objects are known before the forward pass (``expect``), an output is read as soon as
    it is there and then goes the way it goes without hooks. Otherwise all outputs are kept until
    ``take``, and the memory of the next pass is not warm in the cache: measured on one core,
    YOLOv8n at 160 px in batches of 16 with all prunable layers, 1.30 times the forward pass
    instead of 1.10 (benchmarks/activations.py).

    Args:
        layers: Names of the layers.

    Attributes:
        widths: Number of channels of each layer, in the same order; filled by ``take``.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers = tuple(layers)
        self.widths: tuple[int, ...] = ()
        self._expected: ObjectSamples | None = None
        self._cells: Cells = {}
        self._outputs: dict[str, list[Tensor]] = {}
        self._versions: dict[str, list[int]] = {}
        self._copied: set[str] = set()

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Hook the layers of a model while the block runs.

        Raises:
            KeyError: the model has no layer of one of the names.
        """
        modules = modules_by_name(model)
        unknown = [name for name in self.layers if name not in modules]
        if unknown:
            raise KeyError(f"no layer {unknown[0]!r} in {type(model).__name__}")
        handles = [modules[name].register_forward_hook(self._hook(name)) for name in self.layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.forget()

    def expect(self, objects: ObjectSamples) -> None:
        """Set the objects of the next forward pass; ``correct`` does not matter here."""
        self.forget()
        self._expected = objects

    def forget(self) -> None:
        """Drop what the last forward pass left."""
        self._expected = None
        self._cells, self._outputs, self._versions = {}, {}, {}

    def copy_overwritten(self) -> bool:
        """Copy from now on the outputs that a later layer overwrites (``ReLU(inplace=True)``).

        Returns:
            True where the last forward pass overwrote an output for the first time: run it again.
        """
        fresh = {
            name
            for name, versions in self._versions.items()
            if versions != [_version(output) for output in self._outputs[name]]
        }
        self._copied |= fresh
        if fresh:
            self.forget()
        return bool(fresh)

    def take(self, samples: ObjectSamples, chosen: Tensor) -> list[Tensor]:
        """Return the vectors of some objects, all layers side by side: (m, sum of widths) each.

        One tensor per call of the layers in the forward pass; a layer that ran fewer times than
        another repeats its last call.

        Args:
            samples: All M objects of the batch.
            chosen: (M,) bool, the m objects that are wanted.

        Raises:
            ValueError: a layer did not run, its output has no channels to read, or the objects
                are not those that were expected.
        """
        missing = [name for name in self.layers if name not in self._outputs]
        if missing:
            raise ValueError(f"layer {missing[0]!r} did not run in the forward pass")
        if self._expected is None:
            wanted, cells = only(samples, chosen), Cells()
            read = [
                [read_objects(output, wanted, name, cells) for output in self._outputs[name]]
                for name in self.layers
            ]
        else:
            _assert_same(self._expected, samples)
            read = [self._outputs[name] for name in self.layers]
        self.widths = tuple(parts[0].shape[1] for parts in read)
        calls = range(max(len(parts) for parts in read))
        rows = [
            torch.cat([parts[min(call, len(parts) - 1)] for parts in read], 1) for call in calls
        ]
        if self._expected is not None:
            rows = [values[chosen] for values in rows]
        self.forget()
        return rows

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, _inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise ValueError(f"layer {name!r} gives a {type(output).__name__}, not a tensor")
            output = output.detach()
            output = channels_second(module, output)
            if self._expected is not None:
                output = read_objects(output, self._expected, name, self._cells)
            else:
                output = output.clone() if name in self._copied else output
                self._versions.setdefault(name, []).append(_version(output))
            self._outputs.setdefault(name, []).append(output)

        return keep


def channels_second(layer: nn.Module, output: Tensor) -> Tensor:
    """Return a layer's output with its channels in the second dimension, (B, C, ...)."""
    if isinstance(layer, nn.Linear | nn.Embedding) and output.ndim > 2:
        return output.movedim(-1, 1)  # (B, tokens, C)
    return output


def read_objects(
    output: Tensor, samples: ObjectSamples, name: str = "layer", cells: Cells | None = None
) -> Tensor:
    """Read the channel vectors (M, C) of M objects from a layer output (B, C, ...).

    At the cell of the object's centre, or the spatial mean where samples have no position; a
    linear layer's output (B, C) is taken as it is.

    Args:
        output: What the layer gave.
        samples: The objects of the batch.
        name: The layer's name, for messages.
        cells: Cells of these objects in other layers' outputs, by (H, W); completed here.

    Raises:
        ValueError: positions are given but the output is not (B, C, H, W).

    >>> output = torch.arange(8.0).reshape(1, 2, 2, 2)
    >>> one = torch.tensor([0])
    >>> where = dict(x=torch.tensor([0.9]), y=torch.tensor([0.1]))
    >>> read_objects(output, ObjectSamples(one, one, one.bool(), **where))
    tensor([[1., 5.]])
    """
    if output.ndim == 2:
        return output[samples.image]
    if samples.x is None or samples.y is None:
        return output.flatten(2).mean(2)[samples.image]
    if output.ndim != 4:
        raise ValueError(
            f"{name} has an output of shape {tuple(output.shape)}: objects with a position can "
            "only be read from (B, C, H, W)"
        )
    cells = {} if cells is None else cells
    height, width = output.shape[2:]
    if (height, width) not in cells:
        cells[height, width] = cell_of(samples.x, samples.y, width, height)
    row, column = cells[height, width]
    return output[samples.image, :, row, column]


def only(samples: ObjectSamples, chosen: Tensor) -> ObjectSamples:
    """Return some of the objects: those chosen by a mask (M,) bool or by indices."""
    places = (None if values is None else values[chosen] for values in samples[3:])
    return ObjectSamples(*(values[chosen] for values in samples[:3]), *places)


def _version(output: Tensor) -> int:
    return 0 if output.is_inference() else output._version


def _assert_same(expected: ObjectSamples, samples: ObjectSamples) -> None:
    for name in ("image", "label"):
        if not torch.equal(getattr(expected, name), getattr(samples, name)):
            raise ValueError(
                f"object_samples gave another {name} than object_positions: both must return the "
                "same objects in the same order (or define object_samples alone)"
            )
