"""The default for classifiers: one object per image, read at the spatial mean."""

from typing import Any

import torch
from torch import Tensor

from lightning_prune.functional.objects import ObjectSamples


def classifier_samples(batch: Any, outputs: Any) -> ObjectSamples:
    """Turn a classifier's batch ``(inputs, target)`` and logits (B, K) into object samples.

    Raises:
        TypeError: the batch or the output is not a classifier's; the message says what to define.

    >>> logits = torch.tensor([[2.0, 1.0], [3.0, 0.0]])
    >>> classifier_samples((None, torch.tensor([0, 1])), logits).correct
    tensor([ True, False])
    """
    target = batch[1] if isinstance(batch, tuple | list) and len(batch) == 2 else None
    fits = (
        isinstance(target, Tensor)
        and isinstance(outputs, Tensor)
        and not target.is_floating_point()
        and target.ndim == 1
        and outputs.ndim == 2
        and len(target) == len(outputs)
    )
    if not fits:
        raise TypeError(
            "the batch is not (inputs, integer target (B,)) with logits (B, K): define "
            "object_samples(self, batch, outputs) -> ObjectSamples on the LightningModule"
        )
    assert isinstance(target, Tensor)
    image = torch.arange(len(target), device=target.device)
    return ObjectSamples(image, target, outputs.argmax(1) == target)
