"""The criteria: which channels stay."""

from lightning_prune.policies.criteria.bn_scale import BNScale
from lightning_prune.policies.criteria.criterion import Criterion
from lightning_prune.policies.criteria.fisher import Fisher
from lightning_prune.policies.criteria.fpgm import FPGM
from lightning_prune.policies.criteria.group_norm import GroupNorm
from lightning_prune.policies.criteria.lamp import LAMP
from lightning_prune.policies.criteria.mac_aware import MacAware
from lightning_prune.policies.criteria.magnitude import Magnitude
from lightning_prune.policies.criteria.random_choice import RandomChoice
from lightning_prune.policies.criteria.separability import Separability
from lightning_prune.policies.criteria.taylor import Taylor

__all__ = [
    "FPGM",
    "LAMP",
    "BNScale",
    "Criterion",
    "Fisher",
    "GroupNorm",
    "MacAware",
    "Magnitude",
    "RandomChoice",
    "Separability",
    "Taylor",
]
