"""Object activations: class statistics of many layers from one pass over the data."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_prune.functional.objects import ObjectSamples
from lightning_prune.functional.selection.moments import ClassMoments, class_moments, merge_moments
from lightning_prune.graph.forward_pass import untouched
from lightning_prune.observe.background import add_background
from lightning_prune.observe.object_sample import ObjectSample
from lightning_prune.observe.reader import LayerReader

Matching = Literal["detected", "all"]
_PENDING = 1 << 21
"""Values (objects times channels) that are gathered before they become statistics: 8 MB."""


@dataclass
class ObjectActivations:
    """Class-wise statistics of layer outputs at the objects of a data set.

    Only count, mean, variance and mean absolute value per class are kept, so that memory is
    O(C K) whatever the number of images; with ``shuffles`` also a sample of at most 32 MB. The
    statistics are complete when ``watch`` has ended.

    Attributes:
        layers: Names of the observed layers.
        widths: Number of channels of each layer, in the same order; filled by the first batch.
        moments: Statistics of all layers, their channels side by side (sum of widths, K).
        objects: Number of objects seen.
        matched: Number of them that the model got right.
        shuffles: How many times the labels are dealt out at random too, for comparison; and how
            many times objects are halved.
        seed: Seed of that.
        sample: The objects that these random labels are dealt out to; None without any.
    """

    layers: tuple[str, ...]
    widths: tuple[int, ...] = ()
    moments: ClassMoments | None = None
    objects: int = 0
    matched: int = 0
    shuffles: int = 0
    seed: int = 0
    sample: ObjectSample | None = field(default=None, repr=False)
    _pending: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False)
    _reader: LayerReader = field(init=False, repr=False)
    _generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._reader = LayerReader(self.layers)
        self._generator = torch.Generator().manual_seed(self.seed)

    def of(self, layer: str) -> ClassMoments | None:
        """Return the statistics of one layer, or None where no object was seen."""
        if self.moments is None:
            return None
        rows, whole = self._rows(layer), self.moments
        return ClassMoments(
            whole.count, whole.mean[rows], whole.variance[rows], whole.mean_abs[rows]
        )

    def sampled_of(self, layer: str) -> ClassMoments:
        """Return the statistics of one layer over the sample, under the real labels.

        Raises:
            ValueError: no object was seen.
        """
        whole = self.of(layer)
        if whole is None:
            raise ValueError(f"no object was seen at layer {layer!r}: there is nothing to sample")
        if self.sample is None or self.sample.is_all:
            return whole
        return self.sample.moments(self._rows(layer), whole.num_classes)

    def shuffled_of(self, layer: str) -> list[ClassMoments]:
        """Return the statistics of one layer over the sample, under each random labelling."""
        if self.sample is None or self.moments is None:
            return []
        rows, classes = self._rows(layer), self.moments.num_classes
        return self.sample.shuffled(rows, classes, self.shuffles, self.seed)

    def halves_of(self, layer: str) -> list[tuple[ClassMoments, ClassMoments]]:
        """Return the statistics of one layer over random halves of the sample, several times."""
        if self.sample is None or self.moments is None:
            return []
        rows, classes = self._rows(layer), self.moments.num_classes
        return self.sample.halves(rows, classes, self.shuffles, self.seed)

    @property
    def sampled(self) -> float:
        """Fraction of the objects that the sample holds, in (0, 1]; 1 where there is none."""
        return 1.0 if self.sample is None else len(self.sample.label) / self.sample.seen

    def _rows(self, layer: str) -> slice:
        place = self.layers.index(layer)
        start = sum(self.widths[:place])
        return slice(start, start + self.widths[place])

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Hook the layers of a model while the block runs.

        Raises:
            KeyError: the model has no layer of one of the names.
        """
        with self._reader.watch(model):
            try:
                yield
            finally:
                self._merge_pending()

    def expect(self, objects: ObjectSamples) -> None:
        """Set the objects of the next forward pass, so that no feature map need be kept."""
        self._reader.expect(objects)

    def copy_overwritten(self) -> bool:
        """Return whether a forward pass must run again: see ``LayerReader.copy_overwritten``."""
        return self._reader.copy_overwritten()

    def update(self, samples: ObjectSamples, matching: Matching = "detected") -> None:
        """Add the objects of the batch that the hooked model has just seen.

        Raises:
            ValueError: a hooked layer did not run, its output has no channel axis to read, or the
                objects are not those that were expected.
        """
        self.objects += len(samples.label)
        self.matched += int(samples.correct.sum())
        chosen = samples.correct if matching == "detected" else torch.ones_like(samples.correct)
        label = samples.label[chosen]
        if len(label) == 0:
            self._reader.forget()
            return
        for values in self._reader.take(samples, chosen):
            self._pending.append((values, label))
        self.widths = self._reader.widths
        if sum(values.numel() for values, _ in self._pending) >= _PENDING:
            self._merge_pending()

    def _merge_pending(self) -> None:
        """Turn the vectors that wait into statistics: many at once, as merging costs O(C K)."""
        if not self._pending:
            return
        values, label = (torch.cat(parts) for parts in zip(*self._pending, strict=True))
        self._pending.clear()
        classes = int(label.max()) + 1
        part = class_moments(values, label, classes)
        self.moments = part if self.moments is None else merge_moments(self.moments, part)
        if self.shuffles:
            new = ObjectSample.of(values, label, self._generator)
            self.sample = _merged(self.sample, new)


def collect_activations(
    model: nn.Module,
    batches: Iterable[Any],
    layers: Sequence[str],
    samples_of: Callable[[Any, Any], ObjectSamples],
    forward: Callable[[nn.Module, Any], Any],
    *,
    objects_of: Callable[[Any], ObjectSamples] | None = None,
    matching: Matching = "detected",
    background: int | None = None,
    seed: int = 0,
    shuffles: int = 0,
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
        objects_of: ``batch -> ObjectSamples``, the same objects as known before the forward pass
            (``correct`` does not matter): feature maps are then read at once, which is faster.
            None: they are kept until ``samples_of`` has answered.
        matching: ``detected``: only objects that the model got right; ``all``: every one.
        background: Class (K) under which one background cell per object, outside all boxes, is
            added; None: no background.
        seed: Seed of the background cells and of the random labels.
        shuffles: Deal out the labels at random too, so many times: what separability they give.
        warn: Warn of missing objects; False where the result is a part that will be merged.

    Warns:
        UserWarning: no object at all, or a class with fewer than 10 of them.
    """
    found = ObjectActivations(tuple(layers), shuffles=shuffles, seed=seed)
    generator = torch.Generator().manual_seed(seed)

    def with_background(samples: ObjectSamples) -> ObjectSamples:
        return samples if background is None else add_background(samples, background, generator)

    with untouched(model), torch.no_grad(), found.watch(model):
        model.eval()
        for batch in batches:
            objects = None
            if objects_of is not None:
                objects = with_background(objects_of(batch))
                found.expect(objects)
            outputs = forward(model, batch)
            if found.copy_overwritten():
                outputs = forward(model, batch)
            samples = samples_of(batch, outputs)
            samples = with_background(samples) if objects is None else _judged(objects, samples)
            found.update(samples, matching)
    if warn:
        warn_of_rare_classes(found)
    return found


def _judged(objects: ObjectSamples, samples: ObjectSamples) -> ObjectSamples:
    """Record which of the expected objects the model got right; the rest are background cells."""
    known = len(samples.label)
    image, label, correct = (
        torch.cat([mine, theirs[known:]])
        for mine, theirs in zip(samples[:3], objects[:3], strict=True)
    )
    return ObjectSamples(image, label, correct, *objects[3:])


def merge_activations(parts: Sequence[ObjectActivations]) -> ObjectActivations:
    """Merge what several processes saw of the same layers, exactly.

    Raises:
        ValueError: no part, or parts of different layers.
    """
    if not parts or any(part.layers != parts[0].layers for part in parts):
        raise ValueError("pass at least one part, all of the same layers")
    merged = ObjectActivations(parts[0].layers, shuffles=parts[0].shuffles, seed=parts[0].seed)
    for part in parts:
        merged.objects += part.objects
        merged.matched += part.matched
        if part.moments is None:
            continue
        merged.widths = part.widths
        if part.sample is not None:
            merged.sample = _merged(merged.sample, part.sample)
        merged.moments = (
            part.moments if merged.moments is None else merge_moments(merged.moments, part.moments)
        )
    return merged


def _merged(known: ObjectSample | None, new: ObjectSample) -> ObjectSample:
    return new if known is None else ObjectSample.merged([known, new])


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
