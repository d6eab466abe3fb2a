"""The norms of every channel over the epochs of a run."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.functional.low_channels import low_channels


@dataclass(frozen=True)
class NormHistory:
    r"""Norms :math:`I_k` of the channels of every group, epoch by epoch.

    Attributes:
        epochs: E epochs (0-based), rising.
        norms: Group name -> (E, C) norms, such as ``group_norms`` returns for each epoch.

    Raises:
        ValueError: no epoch, epochs that do not rise, or norms of another number of epochs.

    >>> norms = torch.tensor([[1.0, 1.0], [1.0, 0.05], [0.8, 0.01]])
    >>> history = NormHistory((0, 1, 2), {"conv": norms})
    >>> history.low_fraction(threshold=0.1)
    [0.0, 0.5, 0.5]
    """

    epochs: tuple[int, ...]
    norms: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if not self.epochs or list(self.epochs) != sorted(set(self.epochs)):
            raise ValueError(f"epochs={self.epochs}: pass at least one, rising and each once")
        wrong = [name for name, n in self.norms.items() if n.ndim != 2 or len(n) != len(self)]
        if wrong or not self.norms:
            raise ValueError(
                f"norms of {wrong or 'no group'}: pass (E, C) tensors for E={len(self)} epochs"
            )

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def channels(self) -> int:
        """Return the number of channels of all groups together."""
        return sum(norms.shape[1] for norms in self.norms.values())

    def low(self, threshold: float) -> dict[str, Tensor]:
        """Return for every group, epoch and channel whether the norm is low: (E, C) bool.

        Args:
            threshold: Fraction, in (0, 1), of the largest norm of the group at that epoch.
        """
        return {
            name: torch.stack([low_channels(row, threshold) for row in norms])
            for name, norms in self.norms.items()
        }

    def low_fraction(self, threshold: float) -> list[float]:
        """Return the fraction of all channels that are low, one number per epoch."""
        low = torch.cat(list(self.low(threshold).values()), dim=1)
        return [float(fraction) for fraction in low.double().mean(1)]

    def mean_norm(self) -> list[float]:
        """Return the mean norm of all channels, one number per epoch."""
        norms = torch.cat([norms.double() for norms in self.norms.values()], dim=1)
        return [float(mean) for mean in norms.mean(1)]
