"""The usage criterion: the channels that are seldom zero stay."""

from typing import Annotated

import torch
from torch import Tensor

from lightning_prune.annotations import AtLeast
from lightning_prune.policies.criteria.criterion import Criterion, Evidence
from lightning_prune.policies.criteria.group_scores import mean_output
from lightning_prune.validation import validated

_MEANING = "up to which an activation counts as zero, in root mean squares of the layer"


@validated
class APoZ(Criterion):
    r"""Keep the channels whose activations are zero in the smallest fraction of all places.

    .. math:: I_c = 1 - APoZ_c, \quad APoZ_c = \frac{1}{N M} \sum_{n=1}^{N} \sum_{m=1}^{M}
        [\, |a_{n,c,m}| \le \theta \, r_n \,], \quad
        r_n = \sqrt{\frac{1}{C M} \sum_{c,m} a_{n,c,m}^2}

    over N images and the M places of a channel's map, after the norm and the activation. A ReLU
    gives exact zeros, which a threshold :math:`\theta = 0` counts as in the source; other
    activations (SiLU, GELU) give hardly any, so what is small beside the root mean square of the
    image's whole output counts too. It is the layer's and not the channel's: a channel that is
    small everywhere is not used, however much it varies.

    Args:
        threshold: :math:`\theta`, at least 0; with 0 all channels that no ReLU follows tie.

    Raises:
        ValueError: the threshold is negative or not finite.

    Source: Hu, Peng, Tai, Tang, 2016, Network Trimming: A Data-Driven Neuron Pruning Approach
    towards Efficient Deep Architectures, arXiv 1607.03250.
    """

    needs = frozenset({"activations"})

    def __init__(self, threshold: Annotated[float, AtLeast(0, _MEANING)] = 0.05) -> None:
        self.threshold = threshold

    def output_values(self, output: Tensor) -> Tensor:
        """Return the fraction of places at which each channel is not zero, (B, C)."""
        wide = output.to(torch.promote_types(output.dtype, torch.float32))
        size = wide.abs().reshape(*output.shape[:2], -1)
        limit = self.threshold * size.square().mean((1, 2), keepdim=True).sqrt()
        return (size > limit).float().mean(2)

    def importance(self, evidence: Evidence) -> Tensor:
        """Return the fraction of places and images at which each channel is not zero, (C,)."""
        return mean_output(evidence.group, evidence.outputs)
