"""Whether a layer separates the classes better than labels dealt out at random would."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_DEVIATIONS = 3.0


@dataclass(frozen=True)
class Chance:
    """The separability of a layer beside that of random labels.

    Attributes:
        separability: Mean over channels and pairs of classes, in [0, 2].
        at_random: The same with random labels, mean over several labellings.
        limit: What random labels hardly exceed: 3 standard deviations above their mean.
    """

    separability: float
    at_random: float
    limit: float

    @property
    def is_noise(self) -> bool:
        """Return whether the layer separates no better than random labels do."""
        return self.separability <= self.limit


def against_chance(matrix: Tensor, shuffled: Sequence[Tensor]) -> Chance | None:
    r"""Compare the mean separability of a layer with that under random labels.

    .. math:: \bar S \le \bar R + 3 s_R \quad \Rightarrow \quad \text{noise}

    with the mean :math:`\bar S` of the layer's matrix, and mean and standard deviation (ddof 1) of
    the means of the matrices under random labels. These have as many objects in each class, so
    that what few objects pretend to separate is in both.

    Args:
        matrix: (C, P) separability.
        shuffled: At least two matrices of the same shape, each under labels dealt out at random.

    Returns:
        The comparison; None where fewer than two labellings or no pair of classes are there.

    Source: permutation tests; R. A. Fisher, 1935, The Design of Experiments.

    >>> noise = [torch.tensor([[0.10]]), torch.tensor([[0.12]]), torch.tensor([[0.14]])]
    >>> chance = against_chance(torch.tensor([[0.17]]), noise)
    >>> round(chance.at_random, 3), round(chance.limit, 3), chance.is_noise
    (0.12, 0.18, True)
    """
    pairs = (matrix != 0).any(0)  # a pair without objects is 0 in every channel
    if len(shuffled) < 2 or not bool(pairs.any()):
        return None
    means = torch.stack([other[:, pairs].mean() for other in shuffled]).to(torch.float64)
    middle, spread = float(means.mean()), float(means.std())
    return Chance(float(matrix[:, pairs].mean()), middle, middle + _DEVIATIONS * spread)
