"""What is said of groups whose channels were chosen without activations."""

from collections.abc import Iterable

from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.pruners.sequential import GroupDecision


def warn_of_fallbacks(decisions: Iterable[GroupDecision]) -> None:
    """Warn once, and not layer by layer, of groups that were decided without activations."""
    reasons: dict[str, list[str]] = {}
    for decision in decisions:
        if decision.status == "fallback":
            reasons.setdefault(str(decision.reason), []).append(decision.group)
    for reason, names in reasons.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        rank_zero_warn(f"{', '.join(names[:3])}{more}: {reason}")
