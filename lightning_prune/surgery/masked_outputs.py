"""What a masked model gives, to be compared with what the cut one gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.compare import eval_outputs, largest_difference


@dataclass(frozen=True)
class CutDifference:
    """How far a cut model is from the masked one.

    Attributes:
        surgery: Largest difference, as a fraction of the largest output, that the cut may not make:
            with layers that mix channels handing their input on.
        whole: Largest difference with them.
        mixed_by: The names of these layers: norms over channels that no rescaling makes up for.
    """

    surgery: float
    whole: float
    mixed_by: tuple[str, ...]


class MaskedOutputs:
    """The outputs of a masked model, taken before it is cut.

    Some norms (GroupNorm where no whole group goes) compute other statistics from fewer channels:
    there the cut model differs from the masked one by nature. So outputs are taken twice, with and
    without these norms.

    Args:
        model: The model, the channels that the plan removes at zero.
        example: Its inputs.
        groups: Its channel groups.
        plan: What will be cut.
        forward: How the model is called with the inputs.

    Attributes:
        allowed: 8 units of rounding of the outputs' precision; it matters in half precision.

    >>> from lightning_prune.graph.trace import trace_groups
    >>> net = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
    >>> x = torch.ones(1, 1)
    >>> outputs = MaskedOutputs(net, x, trace_groups(net, x), PruningPlan())
    >>> outputs.difference(net)
    CutDifference(surgery=0.0, whole=0.0, mixed_by=())
    """

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        groups: ChannelGroups,
        plan: PruningPlan,
        forward: Callable[[nn.Module, Any], Any] = call,
    ) -> None:
        self._example, self._forward = example, forward
        shrinking = (groups[name] for name in plan.keep if len(plan.removed(name)))
        self.mixed_by = tuple(dict.fromkeys(n for group in shrinking for n in group.mixed_by))
        self._whole = self._outputs(model)
        self._surgery = self._outputs(model, self.mixed_by) if self.mixed_by else self._whole
        self.allowed = _rounding(self._whole)

    def difference(self, model: nn.Module) -> CutDifference:
        """Compare with the outputs of the cut model."""
        whole = largest_difference(self._whole, self._outputs(model))
        surgery = whole
        if self.mixed_by:
            surgery = largest_difference(self._surgery, self._outputs(model, self.mixed_by))
        return CutDifference(surgery, whole, self.mixed_by)

    def _outputs(self, model: nn.Module, without: tuple[str, ...] = ()) -> list[Tensor]:
        return eval_outputs(model, self._example, without, self._forward)


def _rounding(outputs: list[Tensor]) -> float:
    """Return the difference that sums in another order make: it matters in half precision."""
    kinds = {output.dtype for output in outputs if output.is_floating_point()}
    return max((8 * torch.finfo(kind).eps for kind in kinds), default=0.0)
