"""Bits per spike of every cell of several sessions, summed up batch by batch and over ranks."""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_prune.neural.functional.bits_per_spike import (
    SpikeSums,
    mean_bits_per_spike,
    spike_sums,
)


class BitsPerSpike(Metric):
    """Information about each cell's spikes beyond its mean rate on the evaluated samples.

    See `lightning_prune.neural.functional.bits_per_spike` for the formula. The state is four sums
    per cell in float64: batches, processes and parts merge without loss.

    Args:
        cells: Number of cells of each session.

    Raises:
        ValueError: no session, or one without a cell.

    >>> metric = BitsPerSpike([2])
    >>> rate = torch.tensor([[1.0, 2.0], [3.0, 0.5], [0.2, 0.1]])
    >>> metric.update(0, rate.log(), torch.tensor([[1.0, 2.0], [4.0, 0.0], [0.0, 0.0]]))
    >>> [round(bits, 4) for bits in metric.compute()[0].tolist()]
    [0.7618, 1.1522]
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    spike_log_rate: Tensor
    rate: Tensor
    spikes: Tensor
    samples: Tensor

    def __init__(self, cells: Sequence[int]) -> None:
        super().__init__()
        if not cells or min(cells) < 1:
            raise ValueError(f"cells={list(cells)}: pass the number of cells of each session")
        self.cells = tuple(int(number) for number in cells)
        for name in SpikeSums._fields:
            zeros = torch.zeros(sum(self.cells), dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def update(
        self, session: int, log_rate: Tensor, spikes: Tensor, mask: Tensor | None = None
    ) -> None:
        """Add samples of one session.

        Args:
            session: Which one, in the order of `cells`.
            log_rate: (B, N) natural logarithm of the expected counts.
            spikes: (B, N) counts.
            mask: (B, N) or (B,), or None: all count.

        Raises:
            ValueError: the session does not exist or does not have so many cells.
        """
        if not 0 <= session < len(self.cells) or log_rate.shape[-1] != self.cells[session]:
            raise ValueError(
                f"session {session} with {log_rate.shape[-1]} cells: the metric was made for "
                f"sessions with {list(self.cells)} cells"
            )
        start = sum(self.cells[:session])
        own = slice(start, start + self.cells[session])
        sums = spike_sums(log_rate.detach(), spikes, mask)
        for name, value in sums._asdict().items():
            getattr(self, name)[own] += value

    def update_batch(
        self, log_rates: Sequence[Tensor], session: Tensor, targets: Mapping[str, Tensor]
    ) -> None:
        """Add a batch of mixed sessions as the neural DataModules give it.

        Args:
            log_rates: For each session (B, N) the log-rates of its cells, for all samples.
            session: (B,) session of each sample.
            targets: `spikes` and `valid`, (B, Nmax).
        """
        for index, log_rate in enumerate(log_rates):
            mine = session == index
            if mine.any():
                own = slice(self.cells[index])
                spikes, valid = targets["spikes"][mine, own], targets["valid"][mine, own]
                self.update(index, log_rate[mine], spikes, valid)

    def compute(self) -> list[Tensor]:
        """Return for each session (N,) float64, not clamped; NaN for cells without spikes."""
        sums = SpikeSums(self.spike_log_rate, self.rate, self.spikes, self.samples)
        return list(sums.bits_per_spike().split(self.cells))

    def summary(self) -> dict[str, Tensor]:
        """Return `bps`, the mean over sessions, and `bps/session_0`, ... means over cells.

        Of every cell max(bits per spike, 0) is taken. Cells without spikes are left out, with a
        warning where there were samples of them; a session without any spikes is NaN.
        """
        values = self.compute()
        unknown = torch.cat([each.reshape(-1) for each in values]).isnan()
        silent = int((unknown & (self.samples > 0)).sum())
        if silent:
            warnings.warn(
                f"{silent} of {sum(self.cells)} cells had no spikes in the data that were "
                "evaluated: they have no bits per spike and are left out of the means",
                stacklevel=2,
            )
        mean, each_session = mean_bits_per_spike(values)
        named = {f"bps/session_{index}": value for index, value in enumerate(each_session)}
        return {"bps": mean, **named}
