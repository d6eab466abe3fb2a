"""The criteria that decide which channels stay, and what one of your own begins with."""

from lightning_prune.policies.criteria.apoz import APoZ
from lightning_prune.policies.criteria.bn_scale import BNScale
from lightning_prune.policies.criteria.criterion import Criterion, Evidence
from lightning_prune.policies.criteria.fisher import Fisher
from lightning_prune.policies.criteria.fpgm import FPGM
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.criteria.hrank import HRank
from lightning_prune.policies.criteria.lamp import LAMP
from lightning_prune.policies.criteria.mac_aware import MacAware
from lightning_prune.policies.criteria.magnitude import Magnitude
from lightning_prune.policies.criteria.random_choice import RandomChoice
from lightning_prune.policies.criteria.reconstruction import Reconstruction
from lightning_prune.policies.criteria.separability import Separability
from lightning_prune.policies.criteria.snp import SNP
from lightning_prune.policies.criteria.taylor import Taylor

__all__ = [
    "FPGM",
    "LAMP",
    "SNP",
    "APoZ",
    "BNScale",
    "Criterion",
    "Evidence",
    "Fisher",
    "GroupNorm",
    "HRank",
    "MacAware",
    "Magnitude",
    "RandomChoice",
    "Reconstruction",
    "Separability",
    "Taylor",
]
