"""A network that was made smaller, and what that took."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from lightning_prune.engine.label_free_steps import StepsTaken
from lightning_prune.plan import PruningPlan


@dataclass(frozen=True)
class Compressed:
    """A network that was made smaller, and what that took.

    Attributes:
        module: The network; the module that was given, cut in place.
        plan: Which channels stayed.
        macs_before: MACs of the dense network for one image.
        macs: MACs of the cut one.
        agreement: Agreement with the dense network on what was held back, at most 1; None: nothing
            was held back.
        agreement_before_steps: The same before the label-free steps.
        steps: What came of these.
        power: Exponent of the rule for widths that was found.
        images: Images that weights were fitted to.
        errors: Layer -> error of the refitted layer; see ``WalkedRefit``.
        left: Layers that were not refitted, and groups that were not cut -> why.
        seconds: Part of the work -> seconds.
    """

    module: nn.Module
    plan: PruningPlan
    macs_before: int
    macs: int
    agreement: float | None
    agreement_before_steps: float | None
    steps: StepsTaken
    power: float
    images: int
    errors: Mapping[str, float]
    left: Mapping[str, str]
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def macs_fraction(self) -> float:
        """MACs that remain, as a fraction of the dense network's."""
        return self.macs / self.macs_before

    @property
    def widths(self) -> dict[str, tuple[int, int]]:
        """Group -> channels before and after, of the groups that are narrower."""
        return {
            name: (self.plan.channels[name], len(keep))
            for name, keep in self.plan.keep.items()
            if len(keep) < self.plan.channels[name]
        }
