"""The names of ``pruning_method`` and what they stand for."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lightning_prune.policies.criteria.apoz import APoZ
from lightning_prune.policies.criteria.bn_scale import BNScale
from lightning_prune.policies.criteria.criterion import Criterion
from lightning_prune.policies.criteria.fisher import Fisher
from lightning_prune.policies.criteria.fpgm import FPGM
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.criteria.hrank import HRank
from lightning_prune.policies.criteria.lamp import LAMP
from lightning_prune.policies.criteria.mac_aware import MacAware
from lightning_prune.policies.criteria.magnitude import Magnitude
from lightning_prune.policies.criteria.random_choice import RandomChoice
from lightning_prune.policies.criteria.reconstruction import Reconstruction
from lightning_prune.policies.criteria.snp import SNP
from lightning_prune.policies.criteria.taylor import Taylor
from lightning_prune.policies.penalties.bn_scale_penalty import BNScalePenalty
from lightning_prune.policies.penalties.channel_penalty import ChannelPenalty
from lightning_prune.policies.penalties.group_norm_penalty import GroupNormPenalty

if TYPE_CHECKING:
    from lightning_prune.loop.channel_sparsity_args import ChannelSparsityArgs

PRUNING_METHODS: dict[str, Callable[[], Criterion]] = {
    "GroupNormPruner": GroupNorm,
    "GroupNormImportance": GroupNorm,
    "GroupMagnitudeImportance": GroupNorm,
    "MACAwareImportance": GroupNorm,
    "BNScalePruner": BNScale,
    "BNScaleImportance": BNScale,
    "MagnitudePruner": lambda: Magnitude(p=2),
    "MagnitudeImportance": lambda: Magnitude(p=2),
    "FPGMImportance": FPGM,
    "LAMPImportance": LAMP,
    "TaylorImportance": Taylor,
    "FisherImportance": Fisher,
    "APoZImportance": APoZ,
    "HRankImportance": HRank,
    "SNPImportance": SNP,
    "ReconstructionImportance": Reconstruction,
    "RandomImportance": RandomChoice,
}
"""Name -> how important a channel is; the names are torch-pruning's and the seed's."""

_BY_SCALE = ("BNScalePruner", "BNScaleImportance")


def criterion_of(args: "ChannelSparsityArgs") -> Criterion:
    """Return the criterion that a configuration names, weighed with MACs where it says so."""
    criterion = PRUNING_METHODS[args.pruning_method]()
    macs = args.MAC_params
    use_macs = macs.use_macs
    if use_macs is None:
        use_macs = args.pruning_method == "MACAwareImportance"
    if not use_macs:
        return criterion
    return MacAware(criterion, "sum" if macs.type == "Sum" else "mul", macs.alpha, macs.beta)


def penalty_of(args: "ChannelSparsityArgs") -> ChannelPenalty:
    """Return the penalty on channels: of batch norms' scales where these decide, or of norms."""
    return BNScalePenalty() if args.pruning_method in _BY_SCALE else GroupNormPenalty()
