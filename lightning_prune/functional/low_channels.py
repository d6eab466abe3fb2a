"""Which channels have become small beside the others of their group."""

from torch import Tensor

from lightning_prune.arguments import NormThreshold
from lightning_prune.validation import validated


@validated
def low_channels(norms: Tensor, threshold: NormThreshold = 0.1) -> Tensor:
    r"""Return which channels' norm is under a fraction of the largest norm of their group.

    .. math:: I_k < \text{threshold} \cdot \max_j I_j

    Beside the largest, not the mean: the mean falls with the channels that a penalty drives down,
    so that the rest would look large for ever. In a group of zeros every channel is low.

    Args:
        norms: (C,) norms I of one group's channels, such as ``group_norms`` returns.
        threshold: Fraction of the largest norm, in (0, 1).

    Returns:
        (C,) bool, True = low.

    Raises:
        ValueError: norms is not a non-empty vector, or the threshold is outside (0, 1).

    >>> import torch
    >>> low_channels(torch.tensor([1.0, 0.05, 0.2]), threshold=0.1).tolist()
    [False, True, False]
    """
    if norms.ndim != 1 or len(norms) == 0:
        raise ValueError(f"norms has shape {tuple(norms.shape)}: pass one number per channel, (C,)")
    largest = norms.max()
    return (norms < threshold * largest) | (largest == 0)
