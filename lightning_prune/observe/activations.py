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
from lightning_prune.graph.trace import untouched
from lightning_prune.observe.background import add_background
from lightning_prune.graph.names import modules_by_name

Matching = Literal["detected", "all"]


@dataclass
class ObjectActivations:
    """Class-wise statistics of layer outputs at the objects of a data set.

    Only count, mean, variance and mean absolute value per class are kept, so that memory is
    O(C K) whatever the number of images.

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
    _features: dict[str, list[Tensor]] = field(default_factory=dict, repr=False)

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

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._features.setdefault(name, []).append(output.detach())

        return keep

    def update(self, samples: ObjectSamples, matching: Matching = "detected") -> None:
        """Add the objects of the batch that the hooked model has just seen.

        Raises:
            ValueError: a hooked layer did not run, or its output has no channel axis to read.
        """
        self.objects += len(samples.label)
        self.matched += int(samples.correct.sum())
        if matching == "detected":
            chosen = samples.correct
            samples = ObjectSamples(*(v if v is None else v[chosen] for v in samples))
        if len(samples.label) == 0:
            self._features.clear()
            return
        rows = []
        for name in self.layers:
            if name not in self._features:
                raise ValueError(f"layer {name!r} did not run in the forward pass")
            rows.append([read_objects(output, samples, name) for output in self._features[name]])
        self._features.clear()
        self.widths = tuple(parts[0].shape[1] for parts in rows)
        for call in range(max(len(parts) for parts in rows)):
            # A layer that runs fewer times than another repeats its last call.
            values = torch.cat([parts[min(call, len(parts) - 1)] for parts in rows], dim=1)
            classes = int(samples.label.max()) + 1
            part = class_moments(values, samples.label, classes)
            self.moments = part if self.moments is None else merge_moments(self.moments, part)


def read_objects(output: Tensor, samples: ObjectSamples, name: str = "layer") -> Tensor:
    """Read the channel vectors (M, C) of M objects from a layer output (B, C, ...).

    At the cell of the object's centre, or the spatial mean where samples have no position; a
    linear layer's output (B, C) is taken as it is.

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
    row, column = cell_of(samples.x, samples.y, output.shape[3], output.shape[2])
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
