"""Stages that do no more than a test asks of them."""

import inspect
from typing import Any, TypeVar

from lightning_prune import (
    ChannelMasker,
    ChannelResetter,
    OptimizerResetter,
    PhysicalPruner,
    SequentialActivationMasker,
)

Stage = TypeVar("Stage")
# Small networks have layers of a few channels, and few images.
_PLAIN: dict[type, dict[str, Any]] = {
    ChannelMasker: {
        "mac_target": None,
        "round_to": 1,
        "ranking": "global",
        "fast_widths": None,
        "recalibrate_images": 0,
        "compensate_images": 0,
        "gradient_images": 64,
    },
    SequentialActivationMasker: {
        "mac_target": None,
        "keep_range": (0.25, 0.5),
        "round_to": 1,
        "fast_widths": None,
        "layers_per_step": None,
        "compensate_images": 0,
    },
    PhysicalPruner: {"recalibrate_images": 0},
    OptimizerResetter: {"restart_at": "cut"},
    ChannelResetter: {"every_n_epochs": 5},
}


def plain(stage: type[Stage], *arguments: Any, **options: Any) -> Stage:
    """Return a stage with the arguments of a test, and the least of everything else."""
    known = next(least for kind, least in _PLAIN.items() if issubclass(stage, kind))
    given = inspect.signature(stage).bind_partial(*arguments, **options).arguments
    return stage(*arguments, **{k: v for k, v in known.items() if k not in given} | options)
