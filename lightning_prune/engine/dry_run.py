"""What a sequential run would decide, with no layer masked."""

from lightning_prune.engine.evidence import evidence
from lightning_prune.engine.mask_state import MaskState
from lightning_prune.engine.masking import Masking
from lightning_prune.engine.sequential_policy import CLUSTERS, SequentialPolicy
from lightning_prune.policies.selection.sequential import GroupDecision


def dry_run(run: Masking[SequentialPolicy]) -> list[GroupDecision]:
    """Return the decisions for all groups, judged by the dense model; nothing is masked.

    Args:
        run: What would mask the model.
    """
    policy, images = run.policy, run.images.evidence
    names, criterion, state = policy.selection.names, policy.criterion, MaskState()
    needs = CLUSTERS | criterion.needs
    beside_chance = policy.selection.needs_chance
    widths = {name: policy.selection.widths_of(policy.groups[name]) for name in names}
    with evidence(
        run.front, criterion, needs, policy.groups, names, images, beside_chance, widths
    ) as collected:
        if policy.target is not None:
            changes = policy.plan_widths(policy.target, state, collected)
            state = MaskState(widths=changes["widths"])
        return [policy.decide(name, state, collected) for name in names]
