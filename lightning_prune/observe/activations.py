"""Object activations: class statistics of many layers from one pass over the data."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_prune.functional.matching import cell_of
from lightning_prune.functional.moments import ClassMoments, class_moments, merge_moments
from lightning_prune.functional.objects import ObjectSamples
from lightning_prune.graph.names import modules_by_name
from lightning_prune.graph.trace import untouched
from lightning_prune.observe.background import add_background

Matching = Literal["detected", "all"]
Cells = dict[tuple[int, int], tuple[Tensor, Tensor]]
"""Row and column of each object, by height and width of the feature map."""

_PENDING = 1 << 22
"""Values (objects times channels) that are gathered before they become statistics: 16 MB."""


@dataclass
class ObjectActivations:
    """Class-wise statistics of layer outputs at the objects of a data set.

    Only count, mean, variance and mean absolute value per class are kept, so that memory is
    O(C K) whatever the number of images. The statistics are complete when ``watch`` has ended.

    Attributes:
        layers: Names of the observed layers.
        widths: Number of channels of each layer, in the same order; filled by the first batch.
        moments: Statistics of all layers, their channels side by side (sum of widths, K).
        objects: Number of objects seen.
        matched: Number of them that the model got right.
    """

    layers: tuple[str, ...]
    widths: tuple[int, ...] = ()
    moments: ClassMoments | None = None
    objects: int = 0
    matched: int = 0
    _features: dict[str, list[tuple[Tensor, int]]] = field(default_factory=dict, repr=False)
    _copied: set[str] = field(default_factory=set, repr=False)
    _pending: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False)

    def of(self, layer: str) -> ClassMoments | None:
        """Return the statistics of one layer, or None where no object was seen."""
        if self.moments is None:
            return None
        place = self.layers.index(layer)
        start = sum(self.widths[:place])
        rows = slice(start, start + self.widths[place])
        whole = self.moments
        return ClassMoments(
            whole.count, whole.mean[rows], whole.variance[rows], whole.mean_abs[rows]
        )

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
            self._features.clear()
            self._merge_pending()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, _inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise TypeError(f"layer {name!r} gives a {type(output).__name__}, not a tensor")
            output = output.detach().clone() if name in self._copied else output.detach()
            version = 0 if output.is_inference() else output._version
            if isinstance(module, nn.Linear) and output.ndim > 2:
                output = output.movedim(-1, 1)  # (B, tokens, C)
            self._features.setdefault(name, []).append((output, version))

        return keep

    def copy_overwritten(self) -> bool:
        """Copy from now on what a later layer overwrites (``ReLU(inplace=True)``).

        Returns:
            True where the last forward pass overwrote an output for the first time: run it again.
        """
        fresh = {
            name
            for name, calls in self._features.items()
            if any(not o.is_inference() and o._version != version for o, version in calls)
        }
        self._copied |= fresh
        if fresh:
            self._features.clear()
        return bool(fresh)

    def update(self, samples: ObjectSamples, matching: Matching = "detected") -> None:
        """Add the objects of the batch that the hooked model has just seen.

        Raises:
            ValueError: a hooked layer did not run, or its output has no channel axis to read.
        """
        self.objects += len(samples.label)
        self.matched += int(samples.correct.sum())
        if matching == "detected":
            samples = _only(samples, samples.correct)
        if len(samples.label) == 0:
            self._features.clear()
            return
        rows, cells = [], Cells()
        for name in self.layers:
            if name not in self._features:
                raise ValueError(f"layer {name!r} did not run in the forward pass")
            calls = self._features[name]
            rows.append([read_objects(output, samples, name, cells) for output, _ in calls])
        self._features.clear()
        self.widths = tuple(parts[0].shape[1] for parts in rows)
        for call in range(max(len(parts) for parts in rows)):
            # A layer that runs fewer times than another repeats its last call.
            values = torch.cat([parts[min(call, len(parts) - 1)] for parts in rows], dim=1)
            self._pending.append((values, samples.label))
        if sum(values.numel() for values, _ in self._pending) >= _PENDING:
            self._merge_pending()

    def _merge_pending(self) -> None:
        """Turn the vectors that wait into statistics: many at once, as merging costs O(C K)."""
        if not self._pending:
            return
        values, label = (torch.cat(parts) for parts in zip(*self._pending, strict=True))
        self._pending.clear()
        part = class_moments(values, label, int(label.max()) + 1)
        self.moments = part if self.moments is None else merge_moments(self.moments, part)


def _only(samples: ObjectSamples, chosen: Tensor) -> ObjectSamples:
    places = (None if v is None else v[chosen] for v in samples[3:])
    return ObjectSamples(*(v[chosen] for v in samples[:3]), *places)


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


def collect_activations(
    model: nn.Module,
    batches: Iterable[Any],
    layers: Sequence[str],
    samples_of: Callable[[Any, Any], ObjectSamples],
    forward: Callable[[nn.Module, Any], Any],
    *,
    matching: Matching = "detected",
    background: int | None = None,
    seed: int = 0,
    warn: bool = True,
) -> ObjectActivations:
    """Run a model over batches in evaluation mode and gather its object activations.

    Mode, statistics of norms and random state of the model are those from before afterwards.

    Args:
        model: The live model, masked or not.
        batches: Batches on the model's device.
        layers: Names of the layers to observe, any number in one pass.
        samples_of: ``(batch, outputs) -> ObjectSamples``.
        forward: ``(model, batch) -> outputs``.
        matching: ``detected``: only objects that the model got right; ``all``: every one.
        background: Class (K) under which one background cell per object, outside all boxes, is
            added; None: no background.
        seed: Seed of the background cells.
        warn: Warn of missing objects; False where the result is a part that will be merged.

    Warns:
        UserWarning: no object at all, or a class with fewer than 10 of them.
    """
    found = ObjectActivations(tuple(layers))
    generator = torch.Generator().manual_seed(seed)
    with untouched(model), torch.no_grad(), found.watch(model):
        model.eval()
        for batch in batches:
            outputs = forward(model, batch)
            if found.copy_overwritten():
                outputs = forward(model, batch)
            samples = samples_of(batch, outputs)
            if background is not None:
                samples = add_background(samples, background, generator)
            found.update(samples, matching)
    if warn:
        warn_of_rare_classes(found)
    return found


def merge_activations(parts: Sequence[ObjectActivations]) -> ObjectActivations:
    """Merge what several processes saw of the same layers, exactly.

    Raises:
        ValueError: no part, or parts of different layers.
    """
    if not parts or any(part.layers != parts[0].layers for part in parts):
        raise ValueError("pass at least one part, all of the same layers")
    merged = ObjectActivations(parts[0].layers)
    for part in parts:
        merged.objects += part.objects
        merged.matched += part.matched
        if part.moments is None:
            continue
        merged.widths = part.widths
        merged.moments = (
            part.moments
            if merged.moments is None
            else merge_moments(merged.moments, part.moments)
        )
    return merged


def warn_of_rare_classes(found: ObjectActivations) -> None:
    """Warn where no object was matched, or fewer than 10 of a class."""
    if found.moments is None:
        warnings.warn(
            f"none of {found.objects} objects was matched by the model: there are no activations "
            "to select channels by",
            stacklevel=3,
        )
        return
    count = found.moments.count
    rare = [f"{k} ({int(n)})" for k, n in enumerate(count) if 0 < n < 10]
    if rare:
        warnings.warn(
            f"classes with fewer than 10 matched objects: {', '.join(rare)}; their separability "
            "is unreliable (one object alone counts as perfectly separable)",
            stacklevel=3,
        )
