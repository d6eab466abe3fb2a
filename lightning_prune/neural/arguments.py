"""Arguments of the neural-response module: nested settings filled in, everything checked."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

from lightning_prune.annotations import Above, AtLeast, Such
from lightning_prune.neural.network.options import (
    ConvNetOptions,
    FrontendOptions,
    ModulatorOptions,
    ReadoutOptions,
)

SessionCells = Annotated[
    list[int] | None,
    AtLeast(1),
    Such(len, "the number of cells of each session, such as [24, 16]"),
]
FrameShape = Annotated[
    list[int] | None,
    AtLeast(1),
    Such(lambda shape: len(shape) == 2, "height and width of a frame in pixels"),
]
StdLimits = Annotated[
    list[float] | None,
    Above(0),
    Such(lambda limits: len(limits) == 2, "[first, last], both positive"),
]
SECTIONS: dict[str, Callable[[Mapping[str, Any], str], Any]] = {
    "frontend": FrontendOptions.from_dict,
    "convnet": ConvNetOptions.from_dict,
    "modulator": ModulatorOptions.from_dict,
    "readout": ReadoutOptions.from_dict,
}


def read_sections(given: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings of the parts of the network.

    Args:
        given: Section name -> options, or settings by name, or None: all defaults.

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
