"""How much information a prediction has about the spikes of a cell."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prune.neural.functional.poisson_loss import full_mask


class SpikeSums(NamedTuple):
    """Sums over samples that bits per spike follow from; sums of parts add up.

    Attributes:
        spike_log_rate: (N,) float64, sum of m r log p.
        rate: (N,) float64, sum of m p.
        spikes: (N,) float64, sum of m r.
        samples: (N,) float64, sum of m.
    """

    spike_log_rate: Tensor
    rate: Tensor
    spikes: Tensor
    samples: Tensor

    def bits_per_spike(self) -> Tensor:
        """Return (N,) float64; NaN for cells without spikes, and for those only."""
        spikes = torch.where(self.spikes > 0, self.spikes, torch.nan)
        constant = spikes * (spikes / self.samples).log() - spikes
        bits = (self.spike_log_rate - self.rate - constant) / spikes / math.log(2)
        # a prediction of NaN must not pass for a silent cell
        return torch.where(bits.isnan() & (self.spikes > 0), -torch.inf, bits)


def spike_sums(log_rate: Tensor, spikes: Tensor, mask: Tensor | None = None) -> SpikeSums:
    """Return the sums that bits per spike follow from.

    Args:
        log_rate: (T, N) natural logarithm of the expected counts.
        spikes: (T, N) counts.
        mask: (T, N) or (T,) bool or weights, or None; see `bits_per_spike`.

    Raises:
        ValueError: the shapes do not fit.

    >>> spike_sums(torch.zeros(3, 1), torch.tensor([[1.0], [0.0], [4.0]])).rate.tolist()
    [3.0]
    """
    if log_rate.shape != spikes.shape or spikes.ndim != 2:
        raise ValueError(
            f"rates of shape {tuple(log_rate.shape)} and counts of shape {tuple(spikes.shape)}: "
            "pass both as (samples, cells)"
        )
    weights = torch.ones_like(spikes) if mask is None else full_mask(mask, spikes)
    used = weights != 0
    weights = weights.double()
    counts = torch.where(used, spikes.double(), 0.0)
    logs = torch.where(used, log_rate.double(), 0.0)
    # no spike costs nothing, however impossible it was said to be
    spike_log_rate = torch.where(counts > 0, counts * logs, 0.0)
    return SpikeSums(
        (weights * spike_log_rate).sum(0),
        (weights * logs.exp()).sum(0),
        (weights * counts).sum(0),
        weights.sum(0),
    )


def bits_per_spike(rate: Tensor, spikes: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return the information a prediction has about each cell's spikes beyond its mean rate.

    .. math::
        B_n = \frac{\sum_t m_{tn} [(r_{tn} \log p_{tn} - p_{tn})
              - (r_{tn} \log \bar r_n - \bar r_n)]}{\ln 2 \; \sum_t m_{tn} r_{tn}}

    with p the predicted rates, r the counts, m the mask and r-bar the mean count of the cell over
    these very samples (m r summed over m summed): the constant prediction that is best on them.
    Entries with m = 0 may hold anything, NaN too. A cell without spikes has no value: NaN, which
    `mean_bits_per_spike` leaves out.

    Args:
        rate: (T, N) expected counts per sample, not negative.
        spikes: (T, N) counts.
        mask: (T, N) or (T,) bool or weights, or None: all count alike.

    Returns:
        (N,) float64 bits per spike; below 0 where the mean rate predicts better, minus infinity
        where a spike came at rate 0 or a rate is NaN.

    Raises:
        ValueError: the shapes do not fit.

    Source: J. W. Pillow et al., 2008, Nature 454, 995-999,
    DOI 10.1038/nature07140 (log-likelihood per spike against a homogeneous Poisson process).

    >>> rate = torch.tensor([[1.0, 2.0], [3.0, 0.5], [0.2, 0.1]])
    >>> spikes = torch.tensor([[1.0, 2.0], [4.0, 0.0], [0.0, 0.0]])
    >>> [round(bits, 4) for bits in bits_per_spike(rate, spikes).tolist()]
    [0.7618, 1.1522]
    """
    return spike_sums(rate.double().log(), spikes, mask).bits_per_spike()


def mean_bits_per_spike(sessions: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the mean over sessions of the mean over cells of max(bits per spike, 0).

    Args:
        sessions: For each session (N,) bits per spike; NaN (no spikes) is left out.

    Returns:
        the mean over the sessions that have a value, and the value of each session; NaN where no
        cell has one.

    >>> mean, each = mean_bits_per_spike([torch.tensor([1.0, -3.0, torch.nan]), torch.ones(2)])
    >>> float(mean), [float(value) for value in each]
    (0.75, [0.5, 1.0])
    """
    each = [values.clamp(min=0).nanmean() for values in sessions]
    return torch.stack(each).nanmean(), each
