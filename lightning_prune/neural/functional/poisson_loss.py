"""How unlikely spike counts are under predicted rates."""

from collections.abc import Sequence

import torch
from torch import Tensor


def poisson_loss(log_rate: Tensor, spikes: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return the masked mean Poisson negative log-likelihood, without the constant log r!.

    .. math:: L = \frac{\sum_{tn} m_{tn} (e^{y_{tn}} - r_{tn} y_{tn})}{\sum_{tn} m_{tn}}

    with y the log-rates, r the counts and m the mask; entries with m = 0 may hold anything, NaN
    too, and get no gradient. Where nothing is left the loss is 0.

    Args:
        log_rate: (T, N) natural logarithm of the expected counts.
        spikes: (T, N) counts.
        mask: (T, N) or (T,) bool or weights, or None: all count alike. One of shape (T,) holds for
            all N cells.

    Returns:
        () loss in nats per count, in the dtype of the log-rates (float32 at least).

    Raises:
        ValueError: the shapes do not fit.

    >>> log_rate, spikes = torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [5.0, 5.0]])
    >>> float(poisson_loss(log_rate, spikes)), float(poisson_loss(log_rate, spikes, torch.eye(2)))
    (1.0, 1.0)
    """
    if log_rate.shape != spikes.shape:
        raise ValueError(
            f"log-rates of shape {tuple(log_rate.shape)} and counts of shape "
            f"{tuple(spikes.shape)}: pass one log-rate for every count"
        )
    if log_rate.dtype in (torch.float16, torch.bfloat16):
        log_rate = log_rate.float()
    if mask is None:
        return (log_rate.exp() - spikes * log_rate).mean() if spikes.numel() else log_rate.sum()
    weights = full_mask(mask, spikes)
    used = weights != 0
    # masked before the exponential: the gradient of an unused inf would be NaN
    log_rate = torch.where(used, log_rate, 0.0)
    losses = log_rate.exp() - torch.where(used, spikes, 0.0) * log_rate
    weights = weights.to(losses.dtype)
    total = weights.sum()
    return (losses * weights).sum() / torch.where(total > 0, total, 1.0)


def poisson_divergence(
    log_rate: Tensor | Sequence[Tensor], dense: Tensor | Sequence[Tensor]
) -> Tensor:
    r"""Return the Poisson loss against the rates of the dense network, less its least value.

    .. math:: L = \frac{1}{N} \sum_n e^{y_n} - e^{\hat y_n} - e^{\hat y_n} (y_n - \hat y_n)

    with y the log-rates and a hat for those of the dense network; 0 where they are equal.

    Args:
        log_rate: Log-rates of any shape, or several such tensors, whose entries all count alike.
        dense: The same of the dense network.

    >>> log_rate, dense = torch.tensor([0.0, 0.0]), torch.tensor([0.0, 2.0]).log1p()
    >>> round(float(poisson_divergence(log_rate, dense)), 4)  # (1 - 3 + 3 log 3) / 2
    0.6479
    """
    given, wanted = (
        torch.cat([one.flatten() for one in ([rates] if isinstance(rates, Tensor) else rates)])
        for rates in (log_rate, dense)
    )
    expected = wanted.exp()
    return poisson_loss(given, expected) - poisson_loss(wanted, expected)


def full_mask(mask: Tensor, spikes: Tensor) -> Tensor:
    """Return a mask of the shape of the counts (T, N), which may have been given for rows (T,).

    Raises:
        ValueError: the shapes do not fit.
    """
    if mask.shape != spikes.shape and mask.shape != spikes.shape[:1]:
        raise ValueError(
            f"a mask of shape {tuple(mask.shape)} for counts of shape {tuple(spikes.shape)}: pass "
            "one value for every count, or one for every row"
        )
    return mask if mask.ndim == spikes.ndim else mask[:, None].expand_as(spikes)
