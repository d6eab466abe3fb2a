"""How far class scores are from those of another network, softened by a temperature."""

from torch import Tensor


def softened_divergence(logits: Tensor, dense: Tensor, temperature: float = 4.0) -> Tensor:
    r"""Return the divergence of softened class probabilities from those of the dense network.

    .. math:: L = \frac{T^2}{N} \sum_n \sum_k \hat p_{nk} \log \frac{\hat p_{nk}}{p_{nk}},
        \quad p_n = \mathrm{softmax}(z_n / T), \quad \hat p_n = \mathrm{softmax}(\hat z_n / T)

    over the N samples (or pixels) and K classes; :math:`T^2` keeps the size of the gradient
    whatever the temperature.

    Args:
        logits: (B, K) or (B, K, ...) of the pruned network.
        dense: The same of the dense network.
        temperature: T, above 0; the larger, the more the unlikely classes count.

    Returns:
        () the mean over samples in nats; 0: equal.

    Source: Hinton, Vinyals, Dean, 2015, Distilling the Knowledge in a Neural Network,
    arXiv 1503.02531.

    >>> import torch
    >>> dense = torch.tensor([[0.0, 0.0]])
    >>> logits = torch.tensor([[0.0, torch.tensor(3.0).log()]])  # 1/4 and 3/4
    >>> round(softened_divergence(logits, dense, 1.0).item(), 4)  # (log 2 + log 2/3) / 2
    0.1438
    >>> softened_divergence(dense, dense).item()
    0.0
    """
    if not logits.dtype.itemsize >= 4:
        logits = logits.float()
    dense = dense.to(logits.dtype)
    given = (logits / temperature).log_softmax(1)
    wanted = (dense / temperature).log_softmax(1)
    divergence = (wanted.exp() * (wanted - given)).sum(1).mean()
    return divergence * temperature**2
