"""The default for classifiers: one object per image, read at the spatial mean."""

from typing import Any

import torch
from torch import Tensor

from lightning_prune.functional.objects import ObjectSamples

_ADVICE = "define object_samples(self, batch, outputs) -> ObjectSamples on the LightningModule"


def classifier_objects(batch: Any) -> ObjectSamples:
    """Return the objects of a classifier's batch ``(inputs, integer target (B,))``: every image.

    Raises:
        TypeError: the batch is not a classifier's; the message says what to define.

    >>> classifier_objects((None, torch.tensor([3, 1]))).label
    tensor([3, 1])
    """
    target = batch[1] if isinstance(batch, tuple | list) and len(batch) == 2 else None
    if not isinstance(target, Tensor) or target.is_floating_point() or target.ndim != 1:
        raise TypeError(f"the batch is not (inputs, integer target (B,)): {_ADVICE}")
    image = torch.arange(len(target), device=target.device)
    return ObjectSamples(image, target, torch.ones_like(target, dtype=torch.bool))


def classifier_samples(batch: Any, outputs: Any) -> ObjectSamples:
    """Turn a classifier's batch ``(inputs, target)`` and logits (B, K) into object samples.

    Raises:
        TypeError: the batch or the output is not a classifier's; the message says what to define.

    >>> logits = torch.tensor([[2.0, 1.0], [3.0, 0.0]])
    >>> classifier_samples((None, torch.tensor([0, 1])), logits).correct
    tensor([ True, False])
    """
    objects = classifier_objects(batch)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(objects.label):
        raise TypeError(f"the outputs are not logits (B, K): {_ADVICE}")
    return objects._replace(correct=outputs.argmax(1) == objects.label)
