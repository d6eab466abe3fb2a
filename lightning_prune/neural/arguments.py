"""Arguments of the neural-response module: nested settings filled in, everything checked."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lightning_prune.modules.argument_ranges import (
    SCHEDULE_RANGES,
    Ranges,
    check_choices,
    check_ranges,
)
from lightning_prune.neural.network.options import (
    ConvNetOptions,
    FrontendOptions,
    ModulatorOptions,
    ReadoutOptions,
)

SECTIONS: dict[str, Callable[[Mapping[str, Any], str], Any]] = {
    "frontend": FrontendOptions.from_dict,
    "convnet": ConvNetOptions.from_dict,
    "modulator": ModulatorOptions.from_dict,
    "readout": ReadoutOptions.from_dict,
}
_RANGES: Ranges = {
    **SCHEDULE_RANGES,
    "core_lr_scale": (0, math.inf, False, "a multiple of lr of at least 0"),
    "frames": (1, 10_000, True, "a number of frames from 1 to 10000"),
    "max_std_epochs": (0, math.inf, False, "an integer of at least 0"),
}
_INTEGERS = ("frames", "schedule_epochs", "max_std_epochs")


def check(hparams: Mapping[str, Any]) -> None:
    """Check every argument of a ``NeuralResponseModule`` but its sections.

    Raises:
        ValueError: an argument is out of range; the message says what is allowed.
    """
    check_choices(hparams, {"schedule": ("linear", "cosine", "one_cycle")})
    check_ranges(hparams, _RANGES, _INTEGERS)
    _check_counts("cells", hparams["cells"], "the number of cells of each session")
    shape = hparams["frame_shape"]
    _check_counts("frame_shape", shape, "height and width of a frame in pixels")
    if len(shape) != 2:
        raise ValueError(f"frame_shape={shape!r}: pass height and width of a frame in pixels")
    limits = hparams["max_std"]
    if limits is not None and not (len(limits) == 2 and all(limit > 0 for limit in limits)):
        raise ValueError(f"max_std={limits!r}: pass [first, last], both positive, or null")


def _check_counts(name: str, values: Any, meaning: str) -> None:
    if values is None:
        raise ValueError(f"{name} is missing: pass {meaning}")
    listed = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
    if not listed or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise ValueError(f"{name}={values!r}: pass {meaning}, such as [24, 16]")


def read_sections(given: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """Read the settings of the parts of the network.

    Args:
        given: Section name -> settings by name, or None: all defaults.

    Returns:
        Section name -> options.

    Raises:
        ValueError: an unknown key, or a value of the wrong type or out of range.
    """
    return {name: read(given[name] or {}, name) for name, read in SECTIONS.items()}


def with_behavior(modulator: Mapping[str, Any] | None, behavior_dim: int | None) -> dict[str, Any]:
    """Set the width of the behaviour in the settings of the modulator.

    Args:
        modulator: Settings by name; a width in it that is None counts as absent.
        behavior_dim: The width, or None: what the settings say.

    Raises:
        ValueError: the settings say another width.
    """
    settings = dict(modulator or {})
    own = settings.get("behavior_dim")
    if own is None:
        settings.pop("behavior_dim", None)
    if behavior_dim is None:
        return settings
    if own not in (None, behavior_dim):
        raise ValueError(
            f"behavior_dim={behavior_dim} and modulator.behavior_dim={own} are two widths: leave "
            "one out (behavior_dim is taken from the data)"
        )
    return {**settings, "behavior_dim": behavior_dim}


def plain(options: Any) -> Any:
    """Return options as dicts, lists and numbers, as a checkpoint holds them."""
    return _plain(asdict(options))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value
