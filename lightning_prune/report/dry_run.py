"""What a dry run prints: the plan, the widths, the MACs that would remain."""

from collections.abc import Sequence

from lightning_prune.graph.macs import MacModel
from lightning_prune.policies.selection.sequential import GroupDecision


def dry_run_text(decisions: Sequence[GroupDecision], macs: MacModel) -> str:
    """Return a table of widths and the MACs that they would leave."""
    longest = max([len(d.group) for d in decisions], default=5)
    lines = ["Dry run: nothing is masked, cut or trained.", ""]
    counted = any(d.count is not None for d in decisions)
    profiles = "  profiles" if counted else ""
    lines.append(f"{'group':<{longest}}  before  after  knee{profiles}  set by")
    for decision in decisions:
        knee = "-" if decision.knee is None else str(decision.knee)
        count = "-" if decision.count is None else str(decision.count)
        profiles = f"  {count:>8}" if counted else ""
        why = decision.bound if decision.status != "left" else decision.reason
        lines.append(
            f"{decision.group:<{longest}}  {decision.channels:>6}  {len(decision.keep):>5}  "
            f"{knee:>4}{profiles}  {why}"
        )
    left = macs.remaining({d.group: len(d.keep) for d in decisions})
    lines += ["", f"leaves {left / macs.total:.1%} of {macs.total / 1e6:.1f} million MACs"]
    return "\n".join(lines)
