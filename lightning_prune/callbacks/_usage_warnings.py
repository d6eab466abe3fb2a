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


def warn_of_usage(name: str, stats: Mapping[str, Any], which: str, threshold: float) -> None:
    """Warn of a layer none of whose channels was used, or all where the used ones are reset."""
    used, channels = stats["used_channels"], stats["total_channels"]
    if not used and channels:
        rank_zero_warn(
            f"ChannelResetter: no channel of {name} was used: lower threshold={threshold}, or look "
            "for what kills the layer (learning rate, gradients)"
        )
    elif which == "used" and used == channels:
        rank_zero_warn(
            f"ChannelResetter(which='used') takes all {channels} channels of {name}: every one "
            f"was used; raise threshold={threshold} to spare some"
        )
