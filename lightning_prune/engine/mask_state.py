"""How far masks have come, as plain data: the checkpoint of whatever masks a model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lightning_prune.engine.phase import Phase
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.selection.sequential import GroupDecision

VERSION = 1


@dataclass(frozen=True)
class MaskState:
    """What is masked and how it came to that; ``next_action`` decides by it alone.

    Attributes:
        phase: How far pruning has come.
        plan: What is masked; once that is cut, what was.
        originals: What is masked as it was before, plain data of the live mask; None: nothing is
            masked.
        step_epoch: Epoch of the latest step.
        failed_epoch: Latest epoch at which a step could not be decided.
        finished: Whether the masks may be cut out.
        met: Whether the target is met.
        ratio: Ratio of the schedule at the latest step, in [0, 1].
        removed: Fraction of the channels of the selected groups that is masked.
        macs_fraction: MACs that remain, as a fraction of the dense model's.
        freed: Groups whose mask was lifted: they are not masked again.
        decisions: What was decided for each group, where groups are masked one after the other.
        widths: Group -> width that was planned for it.
        latency_fraction: Time that remains, as a fraction of the dense model's, where it was
            measured; None: it was not.

    >>> state = MaskState(Phase.MASKING, step_epoch=3, ratio=0.5, freed=("stem",))
    >>> MaskState.from_state_dict(state.state_dict()) == state
    True
    >>> MaskState.from_state_dict({"version": 2})
    Traceback (most recent call last):
    ValueError: the masks in this checkpoint are of version 2, this release reads up to 1: update \
lightning_prune
    """

    phase: Phase = Phase.DENSE
    plan: PruningPlan = field(default_factory=PruningPlan)
    originals: Mapping[str, Any] | None = None
    step_epoch: int | None = None
    failed_epoch: int | None = None
    finished: bool = False
    met: bool = False
    ratio: float = 0.0
    removed: float = 0.0
    macs_fraction: float = 1.0
    freed: tuple[str, ...] = ()
    decisions: tuple[GroupDecision, ...] = ()
    widths: Mapping[str, int] | None = None
    latency_fraction: float | None = None

    @property
    def masked(self) -> PruningPlan:
        """What is held at zero now: nothing before the first step and after the cut."""
        return PruningPlan() if self.phase is Phase.CUT else self.plan

    def state_dict(self) -> dict[str, Any]:
        """Return it as numbers, strings, tensors, lists and dicts, with the layout's version."""
        return (
            {"version": VERSION}
            | vars(self)
            | {
                "phase": str(self.phase),
                "plan": self.plan.state_dict(),
                "freed": list(self.freed),
                "decisions": [decision.state_dict() for decision in self.decisions],
            }
        )

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "MaskState":
        """Read what ``state_dict`` returned, or what releases before it wrote.

        Raises:
            ValueError: the state is of a later version.
        """
        version = state.get("version", 0)
        if version > VERSION:
            raise ValueError(
                f"the masks in this checkpoint are of version {version}, this release reads up to "
                f"{VERSION}: update lightning_prune"
            )
        values = dict(state) if version else _renamed(state)
        decisions = [
            GroupDecision(**{**decision, "keep": decision["keep"].cpu()})
            for decision in values.get("decisions", ())
        ]
        plan = plan_of(decisions)
        if "plan" in values:
            plan = PruningPlan.from_state_dict(values["plan"])
        values |= {
            "phase": Phase(values["phase"]),
            "plan": plan,
            "freed": tuple(values.get("freed", ())),
            "decisions": tuple(decisions),
        }
        return cls(**{each.name: values[each.name] for each in fields(cls) if each.name in values})


def measured_words(state: MaskState) -> str:
    """Return which fraction of the time was measured, for the end of a sentence; "": none was.

    >>> measured_words(MaskState(latency_fraction=0.5)), measured_words(MaskState())
    (', 50.0% of the time as measured', '')
    """
    if state.latency_fraction is None:
        return ""
    return f", {state.latency_fraction:.1%} of the time as measured"


def plan_of(decisions: Iterable[GroupDecision]) -> PruningPlan:
    """Return what decisions mask: groups that are left alone are in no plan."""
    masked = [decision for decision in decisions if decision.status != "left"]
    return PruningPlan({d.group: d.keep for d in masked}, {d.group: d.channels for d in masked})


def _renamed(old: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state without a version under the names of version 1."""
    phase = Phase.CUT if old["cut"] else Phase.MASKING
    if not (old["cut"] or old.get("decisions") or old.get("step_epoch") is not None):
        phase = Phase.DENSE
    return {
        **old,
        "phase": phase,
        "failed_epoch": old.get("skipped"),
        "macs_fraction": old.get("share", 1.0),
        "step_epoch": old.get("step_epoch", old.get("late")),
    }
