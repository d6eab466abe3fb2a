"""The phases of a run, on one screen: dense, masking, holding, and then somebody cuts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from lightning_prune.engine.agreement import agree
from lightning_prune.engine.calibration import reestimate_norms, refit_masked
from lightning_prune.engine.evidence import Collected, evidence
from lightning_prune.engine.front_end import FrontEnd
from lightning_prune.engine.live_mask import LiveChannels
from lightning_prune.engine.mask_state import MaskState
from lightning_prune.engine.next_action import Cut, Mask, Steps, next_action
from lightning_prune.engine.phase import Phase
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.macs import MacModel
from lightning_prune.plan import PruningPlan
from lightning_prune.policies.criteria.criterion import Criterion, Need
from lightning_prune.surgery.copy_module import copy_module
from lightning_prune.surgery.masked_refit import restore

Changes = dict[str, Any]
"""Fields of a ``MaskState`` that a decision changes, and their values."""


@dataclass(frozen=True)
class Choice:
    """One decision of a step.

    Attributes:
        names: The groups that it decides.
        needs: What must be collected of them before.
        decide: ``(state, collected) -> changes``; with ``plan`` where something is masked. It may
            raise ``NonFiniteImportanceError``.
        beside_chance: Whether activations are collected under random labels too.
        widths: Group -> widths whose losses are measured, where losses are needed.
    """

    names: Sequence[str]
    needs: frozenset[Need]
    decide: Callable[[MaskState, Collected], Changes]
    beside_chance: bool = False
    widths: Mapping[str, Sequence[int]] = field(default_factory=dict)


class Policy(Protocol):
    """What is masked: by a ratio of all groups, or group by group."""

    @property
    def groups(self) -> ChannelGroups:
        """All groups of the model."""

    @property
    def criterion(self) -> Criterion:
        """How important a channel is."""

    @property
    def macs(self) -> MacModel:
        """MACs as a function of widths."""

    def choices(self, state: MaskState, action: Mask) -> Sequence[Choice]:
        """Return the decisions of a step, in their order: each sees what the last one masked."""

    def freed(self, state: MaskState, names: Sequence[str]) -> Changes:
        """Return what changes where the masks of some groups are lifted."""


PolicyT = TypeVar("PolicyT", bound=Policy)


@dataclass(frozen=True)
class Images:
    """From how many training images things are computed; 0: not at all, None: all.

    Attributes:
        evidence: What criteria need.
        refit: What layers behind masks are fitted to.
        norms: Norm statistics after a mask, or before a refit.
        norms_between: Norm statistics before each further step.
    """

    evidence: int | None = 64
    refit: int = 0
    norms: int = 0
    norms_between: int = 0


class Masking(Generic[PolicyT]):
    """Masks the channels of a model step by step.

    Args:
        front: Who trains the model.
        policy: What is masked.
        steps: When.
        images: From how many training images.

    Attributes:
        live: What is masked now.
    """

    def __init__(self, front: FrontEnd, policy: PolicyT, steps: Steps, images: Images) -> None:
        self.front, self.policy, self.steps, self.images = front, policy, steps, images
        self.live = LiveChannels(front, policy.groups, PruningPlan())

    def advance(self, state: MaskState, epoch: int) -> MaskState:
        """Do what is due at the start of an epoch; again at the same epoch, it changes nothing."""
        while isinstance(action := next_action(state, self.steps, epoch), Mask):
            state = self.step(state, action, epoch)
        return replace(state, finished=True) if isinstance(action, Cut) else state

    def step(self, state: MaskState, action: Mask, epoch: int) -> MaskState:
        """Collect evidence, decide, mask, re-estimate norms, refit what is left."""
        front, groups, images = self.front, self.policy.groups, self.images
        if state.phase is Phase.DENSE:
            front.before_first_mask()
        elif images.norms_between:
            # An epoch is too short for a small momentum to follow what the last masks changed.
            reestimate_norms(front, images.norms_between)
        before = None
        if images.refit:
            front.agree_on_norms()
            before = copy_module(front.model)
        choices = self.policy.choices(state, action)
        for number, choice in enumerate(front.progress(choices, "Choosing channels"), 1):
            changes, failure = self._decide(state, choice)
            if changes is None:
                # Further decisions would build on this one.
                front.report_failure(failure)
                return replace(state, failed_epoch=epoch)
            state = replace(state, **changes)
            if "plan" in changes:
                state = self.hold(state)
                if images.norms and (before is None or number < len(choices)):
                    reestimate_norms(front, images.norms)
        if before is not None and state.plan.keep:
            restore(front.model, before)
            if images.norms:
                # Of the network that is imitated: after a few epochs they lag behind its weights.
                reestimate_norms(front, images.norms)
            refit_masked(front, groups, state.plan, self.policy.macs, images.refit)
            front.restart_averages()
        return self._in_phase(replace(state, step_epoch=epoch))

    def hold(self, state: MaskState) -> MaskState:
        """Hold the plan of a state, such as a resumed run's."""
        self.live.release()
        self.live = LiveChannels(self.front, self.policy.groups, state.plan, state.originals)
        return replace(state, originals=self.live.originals)

    def free(self, state: MaskState, names: Sequence[str]) -> MaskState:
        """Lift masks for good: rows, norms and their statistics are what they were.

        Raises:
            KeyError: a group has no mask.
        """
        self.live.restore(names)
        freed = replace(
            state,
            **self.policy.freed(state, names),
            freed=(*state.freed, *names),
            originals=self.live.originals,
        )
        return self._in_phase(freed)

    def _decide(self, state: MaskState, choice: Choice) -> tuple[Changes | None, str]:
        """Return what one process decides for all, or why it cannot."""
        with evidence(
            self.front,
            self.policy.criterion,
            choice.needs,
            self.policy.groups,
            choice.names,
            self.images.evidence,
            choice.beside_chance,
            choice.widths,
        ) as collected:
            return agree(self.front, partial(choice.decide, state, collected))

    def _in_phase(self, state: MaskState) -> MaskState:
        complete = self.steps.complete(state)
        return replace(state, phase=Phase.HOLDING if complete else Phase.MASKING)
