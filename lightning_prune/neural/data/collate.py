"""Put windows of neural recordings together into a batch."""

from collections.abc import Sequence

import torch

from lightning_prune.neural.data.windows import NeuralBatch


def collate_windows(samples: NeuralBatch | Sequence[NeuralBatch]) -> NeuralBatch:
    """Pass on the batch that `NeuralWindows` fetches whole, or stack single windows.

    Args:
        samples: A batch, or a list of samples.

    Returns:
        inputs and targets, every value with the batch as its first dimension.

    >>> sample = ({"behavior": torch.zeros(3)}, {"spikes": torch.ones(2)})
    >>> inputs, targets = collate_windows([sample, sample])
    >>> inputs["behavior"].shape, targets["spikes"].shape
    (torch.Size([2, 3]), torch.Size([2, 2]))
    """
    if isinstance(samples, tuple):
        return samples
    inputs, targets = (
        {name: torch.stack([sample[name] for sample in part]) for name in part[0]}
        for part in zip(*samples, strict=True)
    )
    return inputs, targets
