"""The section ``slice_sparsity_args`` of a pruning configuration."""

from dataclasses import dataclass
from typing import Annotated, Literal

from lightning_prune.annotations import AtLeast, Between
from lightning_prune.functional.ratio import RatioSchedule


@dataclass(frozen=True)
class SliceSparsityArgs:
    """What the file says of slice pruning; the fields are its keys.

    Attributes:
        is_prune: False: no slice is regularized or masked.
        block_size: Weights per slice; divides the filters of each layer.
        start_epoch: First epoch (0-based) at which slices are masked, or lifted.
        end_epoch: Epoch of the last step.
        prune_rate: Fraction of each layer's slices that is masked in the end.
        epoch_rate: Epochs from one step to the next.
        pruning_gradually: The rate rises by equal steps; False: it is the whole one at once.
        pruning_mode: "Prune", or "Unprune": lift the masks of a loaded state.
        disable_first_index: Spare the first element of each kernel row.
        pruning_method: "L2_norm" or "L1_norm": how slices are compared.
        reg: Strength of the penalty on slices; 0: none.
        layers: Names or patterns of the layers, with a leading ``!`` those left out; empty: all
            convolutions. Not in the seed: a head whose filters ``block_size`` does not divide must
            be left out somehow.
    """

    is_prune: bool
    block_size: Annotated[int, AtLeast(1)]
    start_epoch: Annotated[int, AtLeast(0)]
    end_epoch: Annotated[int, AtLeast(1)]
    prune_rate: Annotated[float, Between(0, 1, ends="(]")]
    epoch_rate: Annotated[int, AtLeast(1)] = 1
    pruning_gradually: bool = True
    pruning_mode: Literal["Prune", "Unprune"] = "Prune"
    disable_first_index: bool = False
    pruning_method: Literal["L2_norm", "L1_norm"] = "L2_norm"
    reg: Annotated[float, AtLeast(0)] = 0.0
    layers: list[str] | None = None

    def __post_init__(self) -> None:
        _ = self.schedule

    @property
    def schedule(self) -> RatioSchedule:
        """Return the rate at every epoch, where it rises gradually."""
        return RatioSchedule(self.start_epoch, self.end_epoch, self.epoch_rate, self.prune_rate)

    @property
    def norm(self) -> Literal[1, 2]:
        """Return the norm by which slices are compared."""
        return 1 if self.pruning_method == "L1_norm" else 2


NO_SLICES = SliceSparsityArgs(False, 1, 0, 1, 1.0)
"""Where ``is_prune`` is false."""
