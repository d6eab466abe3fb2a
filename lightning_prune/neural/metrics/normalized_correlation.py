"""CCnorm of every cell from samples of repeated stimuli, batch by batch and over ranks."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_prune.neural.functional.normalized_correlation import normalized_correlation


class NormalizedCorrelation(Metric):
    """Correlation of a prediction with what repeated stimuli show of each cell's response.

    See `lightning_prune.neural.functional.normalized_correlation` for the formula. An instant of
    the stimulus counts where it was shown as often as the most frequent one, with the cell valid
    each time; the prediction is the mean over its repeats. The n-th sample of an instant belongs to
    repeat n; over several ranks that order is another, which the estimate feels a little.

    Args:
        cells: Number of cells of each session.

    >>> metric = NormalizedCorrelation([1])
    >>> instant = torch.tensor([0, 1, 2, 0, 1, 2])
    >>> spikes = torch.tensor([0.0, 2.0, 1.0, 1.0, 2.0, 0.0])[:, None]
    >>> rate = torch.tensor([0.5, 2.0, 0.5, 0.5, 2.0, 0.5])[:, None]
    >>> metric.update(0, instant, rate.log(), spikes, torch.ones(6, 1).bool())
    >>> round(float(metric.compute()[0]), 4)
    1.2247
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    session: list[Tensor]
    instant: list[Tensor]
    rate: list[Tensor]
    spikes: list[Tensor]

    def __init__(self, cells: Sequence[int]) -> None:
        super().__init__()
        self.cells = tuple(cells)
        for name in ("session", "instant", "rate", "spikes"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self, session: int, instant: Tensor, log_rate: Tensor, spikes: Tensor, valid: Tensor
    ) -> None:
        """Add samples of one session.

        Args:
            session: Which one, in the order of `cells`.
            instant: (B,) int64 which instant of the repeated stimulus; negative: not repeated.
            log_rate: (B, N) natural logarithm of the expected counts.
            spikes: (B, N) counts.
            valid: (B, N) bool.
        """
        used = instant >= 0  # where none is, empty tensors: all ranks must have something to join
        spare = max(self.cells) - self.cells[session]
        rate = log_rate.detach()[used].double().exp()
        counts = spikes[used].double().masked_fill(~valid[used], torch.nan)
        self.session.append(torch.full_like(instant[used], session))
        self.instant.append(instant[used])
        self.rate.append(torch.nn.functional.pad(rate, (0, spare)))
        self.spikes.append(torch.nn.functional.pad(counts, (0, spare)))

    def update_batch(
        self, log_rates: Sequence[Tensor], session: Tensor, targets: Mapping[str, Tensor]
    ) -> None:
        """Add a batch of mixed sessions, as of `BitsPerSpike`; `repeat` names the instants."""
        for index, log_rate in enumerate(log_rates):
            mine = session == index
            if "repeat" in targets and mine.any():
                own = slice(self.cells[index])
                self.update(
                    index,
                    targets["repeat"][mine],
                    log_rate[mine],
                    targets["spikes"][mine, own],
                    targets["valid"][mine, own],
                )

    def compute(self) -> list[Tensor]:
        """Return for each session (N,) float64, NaN where it is not defined."""
        session, instant, rate, spikes = (
            value if isinstance(value, Tensor) else torch.cat(value)
            for value in (self.session, self.instant, self.rate, self.spikes)
        )
        found = []
        for index, cells in enumerate(self.cells):
            mine = session == index
            found.append(_of_session(instant[mine], rate[mine, :cells], spikes[mine, :cells]))
        return found


def _of_session(instant: Tensor, rate: Tensor, spikes: Tensor) -> Tensor:
    undefined = rate.new_full((rate.shape[1],), torch.nan)
    if not len(instant):
        return undefined
    _, place, count = instant.unique(return_inverse=True, return_counts=True)
    full = count == count.max()
    repeats, samples = int(count.max()), int(full.sum())
    if repeats < 2 or samples < 2:
        return undefined
    order = torch.argsort(place, stable=True)
    order = order[full[place[order]]]
    responses = spikes[order].view(samples, repeats, -1).transpose(0, 1)
    prediction = rate[order].view(samples, repeats, -1).mean(1)
    result = normalized_correlation(responses, prediction)
    for cell in responses.isnan().any(0).any(0).nonzero().flatten().tolist():
        shown = ~responses[:, :, cell].isnan().any(0)
        result[cell] = (
            normalized_correlation(responses[:, shown, cell], prediction[shown, cell])
            if int(shown.sum()) >= 2
            else torch.nan
        )
    return result
