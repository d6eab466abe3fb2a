"""The attention-score criterion: the channels of queries and keys that change scores most stay."""

import torch
from torch import Tensor, nn

from lightning_prune.graph.channel_rows import add_to_channels, weight_rows
from lightning_prune.graph.group import Group
from lightning_prune.graph.names import modules_by_name
from lightning_prune.policies.criteria.criterion import Criterion, Evidence, check_observable


class SNP(Criterion):
    r"""Keep the channels whose removal would change attention scores, or what is read, the most.

    Scores are :math:`S_h = \sum_c q_{h,c} k_{h,c}^T` over the channels c of a head h: a pair of a
    query's and a key's channel is one term of rank one, and without it the scores change by
    :math:`\|q\|^2 \|k\|^2`. What is the same for all keys does not count, because the softmax
    does not see it. Over N images

    .. math:: I_c = \sum_h \frac{1}{N} \sum_n \|q_{n,h,c}\|^2 \;
        \frac{1}{N} \sum_n \|k_{n,h,c} - \bar k_{n,h,c}\|^2

    for channels of heads' width (``attention: width`` or ``both``). Other channels (whole heads,
    values, hidden and residual ones) are ranked by what they feed their consumers,

    .. math:: J_c = \frac{1}{N} \sum_n \|a_{n,c}\|^2 \; \|W_{:,c}\|^2

    with the columns W of the layers that read them. Where one channel is queries, keys and values
    at once (a fused layer) both count, each divided by its mean.

    The source ranks pairs by how they overlap with the leading singular vectors of the scores, and
    values by what heads have in common; this is the first-order effect itself, which needs one
    pass and no decomposition. Norms and rotations between a layer and its product are left out.

    Source: K. Shim, J. Yun, S. Choi, 2024, SNP: Structured Neuron-level Pruning to Preserve
    Attention Scores, ECCV, arXiv 2404.11630.
    """

    needs = frozenset({"activations"})

    def output_values(self, output: Tensor) -> Tensor:
        """Return each channel's sum of squares over places, and that about its mean, (B, C, 2)."""
        wide = output.to(torch.promote_types(output.dtype, torch.float32))
        flat = wide.reshape(*wide.shape[:2], -1)
        about = flat - flat.mean(2, keepdim=True)
        return torch.stack([flat.square().sum(2), about.square().sum(2)], 2)

    def importance(self, evidence: Evidence) -> Tensor:
        """Return by how much scores, or what is read, would change without each channel, (C,)."""
        group, outputs = evidence.group, evidence.outputs
        missing = [m.layer for m in group.sources if m.layer not in outputs]
        if missing or not group.sources:
            raise ValueError(
                f"no activation of group {group.name!r} was collected: pass Evidence.outputs, see "
                "observe.output_means.collect_outputs; ChannelMasker does"
            )
        of_scores = torch.zeros(group.channels, dtype=torch.float64)
        paired: dict[str, set[int]] = {}
        for pairs in group.scores:
            query = outputs[pairs.queries].double().cpu()[pairs.query, 0]
            key = outputs[pairs.keys].double().cpu()[pairs.key, 1]
            of_scores.index_add_(0, pairs.channel, query * key)
            paired.setdefault(pairs.queries, set()).update(pairs.query.tolist())
            paired.setdefault(pairs.keys, set()).update(pairs.key.tolist())
        fed = torch.zeros(group.channels, dtype=torch.float64)
        others = 0
        for member in group.sources:
            energy = outputs[member.layer].double().cpu()[:, 0].clone()
            own = paired.get(member.layer, set())
            energy[list(own)] = 0
            add_to_channels(fed, energy, member)
            others += len(set(member.index.tolist()) - own)
        if not others:
            return of_scores
        fed *= _squares_of_consumers(evidence.model, group)
        return _over_mean(of_scores) + _over_mean(fed) if group.scores else fed

    def check(self, model: nn.Module, group: Group) -> None:
        """Raise ValueError where activations, or queries and keys of a group, cannot be read."""
        check_observable(model, group)
        sources = {member.layer for member in group.sources}
        for pairs in group.scores:
            hidden = next((n for n in (pairs.queries, pairs.keys) if n not in sources), None)
            if hidden is not None:
                raise ValueError(
                    f"criterion snp: group {group.name!r} makes scores of attention of what "
                    f"{hidden!r} gives, which is no output of a layer (a weight that is computed, "
                    "attention in one layer): leave the group out or choose criterion=apoz"
                )


@torch.no_grad()
def _squares_of_consumers(model: nn.Module, group: Group) -> Tensor:
    """Return the sum of squares of the columns that read each channel, (C,)."""
    modules = modules_by_name(model)
    total = torch.zeros(group.channels, dtype=torch.float64)
    for member in group.members:
        if member.role == "consumer":
            squares = weight_rows(modules[member.layer], member).double().square().sum(1).cpu()
            total.index_add_(0, member.channel, squares)
    return total


def _over_mean(values: Tensor) -> Tensor:
    mean = values.mean()
    return values / mean if mean > 0 else values
