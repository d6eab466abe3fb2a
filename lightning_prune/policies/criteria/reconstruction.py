"""The reconstruction criterion: the channels stay whose loss consumers could not repair."""

from torch import Tensor

from lightning_prune.policies.criteria.criterion import Criterion, Evidence


class Reconstruction(Criterion):
    r"""Keep the channels for which the layers that read them could not make up.

    Channels go one after the other, always those of the smallest squared error that remains once
    all weights of the consumers are refitted (``eliminate``). The importance of the n-th channel to
    go is the most that a channel cost so far,

    .. math:: I_n = \max_{m \le n} \; l(C - m) - l(C - m + 1)

    with l(w) the loss at w of C channels, as a fraction of the variance of the consumers' outputs
    and linear between the widths that were measured; channels that never went come last. It counts
    on refits (``compensate_images``).

    Source: Frantar, Alistarh, 2022, Optimal Brain Compression, NeurIPS, arXiv 2208.11580; Meng,
    Behdin, Wang, Mazumder, 2024, OSSCAR, ICML, arXiv 2403.12983.

    >>> import torch
    >>> from torch import nn
    >>> from lightning_prune.functional.reconstruction.elimination import Elimination
    >>> from lightning_prune.graph.trace import trace_groups
    >>> net = nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 1))
    >>> group = trace_groups(net, torch.zeros(1, 1))["0"]
    >>> measured = Elimination(torch.tensor([2, 0, 3]), (4, 3, 1), (0.0, 0.1, 0.5))
    >>> importance = Reconstruction().importance(Evidence(net, group, elimination=measured))
    >>> [round(value, 3) for value in importance.tolist()]
    [0.2, 0.2, 0.1, 0.2]
    """

    needs = frozenset({"losses"})

    def importance(self, evidence: Evidence) -> Tensor:
        """Return what each channel cost when it went, (C,) float64."""
        measured = evidence.elimination
        if measured is None:
            raise ValueError("Reconstruction needs Evidence.elimination: see repaired_losses")
        return measured.importance
