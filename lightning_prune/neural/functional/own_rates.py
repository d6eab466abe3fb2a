"""The rates of the cells that were recorded with each sample."""

import torch
from torch import Tensor, nn


def own_rates(rates: list[Tensor], session: Tensor) -> Tensor:
    """Join the log-rates of all sessions to (B, N): for each sample those of its session.

    Sessions without a sample take part with zeros, so that all parameters get a gradient: DDP
    waits for each of them.

    >>> own_rates([torch.ones(2, 2), torch.full((2, 1), 3.0)], torch.tensor([0, 1]))
    tensor([[1., 1.],
            [3., 0.]])
    """
    most = max(rate.shape[1] for rate in rates)
    out = torch.zeros(())
    for index, rate in enumerate(rates):
        mine = (session == index)[:, None]
        padded = nn.functional.pad(rate, (0, most - rate.shape[1]))
        out = out.to(padded) + torch.where(mine, padded, padded.new_zeros(()))
    return out
