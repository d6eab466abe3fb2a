"""What the tracking of channels has to say about a layer."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn


def warn_of_unseen(names: Sequence[str]) -> None:
    """Warn of layers of which no training pass was seen in an epoch."""
    if names:
        rank_zero_warn(
            f"ChannelResetter saw no training pass of {', '.join(names[:3])} (of {len(names)} "
            "layers): training does not use them, or they were compiled before hooks were there; "
            "leave them out of `layers`"
        )


def warn_of_usage(stats: Mapping[str, Mapping[str, Any]], which: str, threshold: float) -> None:
    """Warn of layers none of whose channels was used, or all where the used ones are reset.

    Args:
        stats: Name of a layer -> its `used_channels` and `total_channels`.
        which: Which channels are reset.
        threshold: Below it a channel counts as unused.
    """
    used = {name: (one["used_channels"], one["total_channels"]) for name, one in stats.items()}
    dead = [name for name, (some, channels) in used.items() if channels and not some]
    full = [name for name, (some, channels) in used.items() if channels and some == channels]
    if dead:
        rank_zero_warn(
            f"ChannelResetter: no channel of {_some(dead)} was used: lower threshold={threshold}, "
            "or look for what kills the layer (learning rate, gradients)"
        )
    if full and which == "used":
        rank_zero_warn(
            f"ChannelResetter(which='used') takes all channels of {_some(full)}: every one was "
            f"used; raise threshold={threshold} to spare some"
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more layers"
