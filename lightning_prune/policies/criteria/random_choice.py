"""The random baseline: any channels stay."""

import zlib

import torch
from torch import Tensor

from lightning_prune.policies.criteria.criterion import Criterion, Evidence


class RandomChoice(Criterion):
    """Keep channels drawn at random: what every other rule has to beat.

    Args:
        seed: Seed; the draw of a group depends on the seed and the group's name alone.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def importance(self, evidence: Evidence) -> Tensor:
        """Return a random number for every channel, (C,)."""
        key = zlib.crc32(f"{self.seed}:{evidence.group.name}".encode())
        generator = torch.Generator().manual_seed(key)
        return torch.rand(evidence.group.channels, generator=generator, dtype=torch.float64)
