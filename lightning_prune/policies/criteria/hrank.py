"""The rank criterion: the channels whose feature maps have the highest rank stay."""

from typing import Annotated

import torch
from torch import Tensor, nn

from lightning_prune.annotations import Between
from lightning_prune.graph.group import Group
from lightning_prune.graph.names import modules_by_name
from lightning_prune.policies.criteria.criterion import Criterion, Evidence
from lightning_prune.policies.criteria.group_scores import mean_output
from lightning_prune.validation import validated

_MAP_WEIGHT = 4
"""Dimensions of the weight of a convolution over images."""

_MEANING = "the fraction of a map's largest singular value up to which others count as zero"


@validated
class HRank(Criterion):
    r"""Keep the channels whose feature maps have the highest rank.

    .. math:: I_c = \frac{1}{N} \sum_{n=1}^{N} rank(a_{n,c})

    over N images; :math:`a_{n,c}` is the (H, W) map after the norm and the activation. Of maps
    with more dimensions, such as frames, it is the mean of the ranks. Ranks hardly change from
    one batch of images to another, so that a few dozen images are enough.

    With exact zeros (ReLU) ranks differ by themselves; where an activation gives hardly any
    (SiLU, GELU) nearly all maps are of full rank but for ``rtol``.

    Args:
        rtol: Singular values up to this fraction of the map's largest count as zero, in [0, 1);
            None: those within the precision of the numbers, as in the source.

    Source: Lin, Ji, Wang, Zhang, Zhang, Tian, Shao, 2020, HRank: Filter Pruning using High-Rank
    Feature Map, CVPR, arXiv 2002.10179.
    """

    needs = frozenset({"activations"})

    def __init__(self, rtol: Annotated[float | None, Between(0, 1, _MEANING, "[)")] = 0.01) -> None:
        self.rtol = rtol

    def output_values(self, output: Tensor) -> Tensor:
        """Return the rank of the map of each channel, (B, C)."""
        ranks: Tensor = torch.linalg.matrix_rank(output.float(), rtol=self.rtol)
        return ranks.float().reshape(*output.shape[:2], -1).mean(2)

    def importance(self, evidence: Evidence) -> Tensor:
        """Return the mean rank of each channel's maps, (C,)."""
        return mean_output(evidence.group, evidence.outputs)

    def check(self, model: nn.Module, group: Group) -> None:
        """Raise ValueError where a group's channels are no maps of two dimensions."""
        modules = modules_by_name(model)
        for member in group.sources:
            weight = getattr(modules[member.layer], "weight", None)
            if isinstance(weight, Tensor) and weight.ndim < _MAP_WEIGHT:
                raise ValueError(
                    f"criterion hrank: layer {member.layer!r} of group {group.name!r} makes no "
                    "maps of height and width; leave the layer out or choose criterion=apoz"
                )
