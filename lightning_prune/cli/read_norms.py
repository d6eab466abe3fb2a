"""The group norms of a run's checkpoints."""

from collections.abc import Sequence

import torch
from torch import nn

from lightning_prune.cli.run_checkpoints import RunCheckpoint
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.policies.penalties.group_norms import group_norms
from lightning_prune.report.norm_history import NormHistory


def read_norms(
    module: nn.Module,
    groups: ChannelGroups,
    names: Sequence[str],
    checkpoints: Sequence[RunCheckpoint],
) -> tuple[NormHistory | None, list[RunCheckpoint], dict[str, str]]:
    """Load one checkpoint after the other into a module and measure its channels.

    Args:
        module: A module of the checkpoints' architecture; its weights are replaced.
        groups: Its channel groups.
        names: The groups that are measured.
        checkpoints: One per epoch, in order.

    Returns:
        The norms (None where no file could be read), the checkpoints that they come from, and the
        files that were left out with the reason.
    """
    used, found, skipped = [], [], {}
    for checkpoint in checkpoints:
        try:
            module.load_state_dict(checkpoint.weights())
        except (ValueError, RuntimeError) as error:
            lines = [line.strip() for line in str(error).splitlines()]
            skipped[checkpoint.path.name] = " ".join(lines[:2])
            continue
        used.append(checkpoint)
        found.append({n: v.cpu() for n, v in group_norms(module, groups, names).items()})
    if not used:
        return None, [], skipped
    norms = {name: torch.stack([one[name] for one in found]) for name in names}
    return NormHistory(tuple(one.epoch for one in used), norms), used, skipped
