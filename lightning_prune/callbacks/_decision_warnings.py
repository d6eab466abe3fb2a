"""What the decisions of one step of a masker have to be warned of, all layers in one message."""

from collections.abc import Iterable, Sequence

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_prune.policies.selection.sequential import GroupDecision


def warn_of_decisions(decisions: Sequence[GroupDecision]) -> None:
    """Warn of groups that were decided without activations, and of those that separate nothing.

    Where a ``noise_criterion`` decides for the latter, that is logged.

    Args:
        decisions: Those of one step.
    """
    fallbacks = [d for d in decisions if d.status == "fallback"]
    for reason in dict.fromkeys(d.reason for d in fallbacks):
        fallen = [d for d in fallbacks if d.reason == reason]
        groups = _listed(d.group for d in fallen)
        # What a noise_criterion decides was asked for.
        say = rank_zero_info if all(d.noise for d in fallen) else rank_zero_warn
        say(f"{groups}: {reason} ({len(fallen)} of {len(decisions)} groups)")
    noise = [
        f"{d.group} {d.separability:.3g} (at random {d.separability_at_random:.3g})"
        for d in decisions
        if d.noise and d.status == "pruned"
    ]
    if noise:
        rank_zero_warn(
            f"{len(noise)} of {len(decisions)} groups separate the classes no better than labels "
            "dealt out at random, so that their clusters, and the knee, are those of noise: mean "
            f"separability {_listed(noise)}. A criterion of the weights (Magnitude, GroupNorm) "
            "says more there: leave these layers to it (noise_criterion), start pruning later, or "
            "read more images"
        )


def _listed(names: Iterable[str], most: int = 12) -> str:
    shown = list(names)
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more
