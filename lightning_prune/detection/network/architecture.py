"""What a YOLOv8 has beside size, classes and image channels: activations, norms, widths."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from lightning_prune.detection.network.activations import canonical_activation, make_activation
from lightning_prune.detection.network.blocks import CSP, Conv
from lightning_prune.surgery.json_tensor import from_json_tensor, to_json_tensor

RECORD = "architecture"
"""Key in a network's state dict: uint8, UTF-8 JSON; only where something is not as published."""
BACKBONE_BLOCKS = ("backbone.p2.csp", "backbone.p3.csp", "backbone.p4.csp", "backbone.p5.csp")
_LARGEST_WIDTH = 2048
_LARGEST_DEPTH = 64
_LARGEST_RECORD = 1 << 20


@dataclass(frozen=True)
class Architecture:
    """What differs, or may differ, between networks of one size; the defaults are as published.

    Attributes:
        activation: Of every convolution but the last of each branch: ``silu``, ``relu``,
            ``leaky_relu(0.1)``, ...
        activations: Of single convolutions that have another one: name -> activation.
        shortcuts: CSP blocks whose bottlenecks add their input to their output, by name.
        norm_eps: Epsilon of the batch norms.
        norm_momentum: Momentum of the batch norms, in [0, 1].
        pool_kernel: Side of the pyramid's max pools in pixels, odd.
        pools: Number of these pools, one behind the other.
        pool_shortcut: Whether the pyramid adds its input to its output.
        class_width: Hidden channels of the class branches; None: as published for the number of
            classes.
        box_width: Hidden channels of the box branches; None: as published.
        widths: Channels of p1..p5, even from p2 on; None: those of the size.
        depths: Bottlenecks per CSP block: of p2, p5 and the neck, of p3, of p4; None: as above.

    Raises:
        ValueError: a value is out of range; the message says what is allowed.

    >>> Architecture(activation="relu").changes()
    {'activation': 'relu'}
    """

    activation: str = "silu"
    activations: Mapping[str, str] = field(default_factory=dict)
    shortcuts: tuple[str, ...] = BACKBONE_BLOCKS
    norm_eps: float = 1e-3
    norm_momentum: float = 0.03
    pool_kernel: int = 5
    pools: int = 3
    pool_shortcut: bool = False
    class_width: int | None = None
    box_width: int | None = None
    widths: tuple[int, ...] | None = None
    depths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Normalize values to their one form and check them."""
        _check_types(self)
        put = object.__setattr__
        put(self, "activation", canonical_activation(self.activation))
        single = {name: canonical_activation(text) for name, text in self.activations.items()}
        put(self, "activations", {k: v for k, v in single.items() if v != self.activation})
        put(self, "shortcuts", tuple(sorted(self.shortcuts)))
        for name in ("widths", "depths"):
            value = getattr(self, name)
            put(self, name, None if value is None else tuple(value))
        _check_ranges(self)

    @classmethod
    def of(cls, given: "Architecture | Mapping[str, Any] | None") -> "Architecture":
        """Build it from plain values; None in a place means the default.

        Raises:
            ValueError: a name is unknown, or a value is out of range.
        """
        if isinstance(given, Architecture):
            return given
        given = {} if given is None else given
        if not isinstance(given, Mapping):
            raise ValueError(
                f"architecture={str(given)[:60]!r}: pass a mapping, such as {{activation: relu}}"
            )
        known = [item.name for item in fields(cls)]
        for name in given:
            if name not in known:
                close = difflib.get_close_matches(str(name)[:60], known, 1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise ValueError(
                    f"architecture.{str(name)[:60]} is unknown: {hint}known are {', '.join(known)}"
                )
        return cls(**{name: value for name, value in given.items() if value is not None})

    def changes(self) -> dict[str, Any]:
        """Return what is not as published, as plain values: ``of`` makes the same out of it."""
        usual = Architecture()
        return {
            item.name: _plain(getattr(self, item.name))
            for item in fields(self)
            if getattr(self, item.name) != getattr(usual, item.name)
        }

    def apply(self, network: nn.Module) -> None:
        """Set activations, norms and shortcuts of a network that was built with the rest.

        Raises:
            ValueError: a convolution or a block is named that the network does not have.
        """
        convs = {n: m for n, m in network.named_modules() if isinstance(m, Conv)}
        blocks = {n: m for n, m in network.named_modules() if isinstance(m, CSP)}
        _check_names("activations", self.activations, convs)
        _check_names("shortcuts", self.shortcuts, blocks)
        for name, conv in convs.items():
            act = make_activation(self.activations.get(name, self.activation))
            conv.add_module("act", act)
            conv.norm.eps, conv.norm.momentum = self.norm_eps, self.norm_momentum
        for name, block in blocks.items():
            for bottleneck in block.bottlenecks:
                setattr(bottleneck, "add", name in self.shortcuts)  # noqa: B010


def record_architecture(network: nn.Module) -> None:
    """Make a network's state dict say what is not as published, and loading compare it.

    Args:
        network: It has an attribute ``architecture``.
    """
    network.register_state_dict_post_hook(_write)
    network.register_load_state_dict_pre_hook(_compare)


def _write(network: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    changes = network.architecture.changes()  # type: ignore[operator, union-attr]
    if changes:
        state[prefix + RECORD] = to_json_tensor(changes)


def _compare(
    network: nn.Module,
    state: dict[str, Any],
    prefix: str,
    _metadata: Any,
    _strict: bool,
    _missing: list[str],
    _unexpected: list[str],
    errors: list[str],
) -> None:
    if prefix + RECORD not in state:
        return
    own = network.architecture.changes()  # type: ignore[operator, union-attr]
    found = read_architecture_record(state.pop(prefix + RECORD)).changes()
    if found != own:
        errors.append(
            f"the file's network has architecture={found}, this one {own}: build it with the "
            "arguments of the saved one"
        )


def read_architecture_record(raw: Any) -> Architecture:
    """Return the architecture that a state dict records.

    Raises:
        ValueError: the record cannot be read.
    """
    try:
        return Architecture.of(from_json_tensor(raw, _LARGEST_RECORD))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{RECORD} in the state dict is unreadable ({error}): the file was altered"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _check_names(what: str, given: Any, known: Mapping[str, Any]) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name[:60], list(known), 1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise ValueError(f"architecture.{what}: the network has no {name[:60]}; {hint}")


def _is_int(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse(name: str, value: Any, allowed: str) -> None:
    raise ValueError(f"architecture.{name}={str(value)[:80]}: pass {allowed}")


def _check_types(given: Architecture) -> None:
    if not isinstance(given.activation, str):
        _refuse("activation", given.activation, "a name, such as relu or leaky_relu(0.1)")
    single = given.activations
    if not isinstance(single, Mapping) or not all(
        isinstance(text, str) for pair in single.items() for text in pair
    ):
        _refuse("activations", single, "a mapping of convolutions to activations")
    if not isinstance(given.shortcuts, list | tuple) or not all(
        isinstance(name, str) for name in given.shortcuts
    ):
        _refuse("shortcuts", given.shortcuts, "a list of CSP blocks")
    for name in ("widths", "depths"):
        if not isinstance(getattr(given, name), list | tuple | None):
            _refuse(name, getattr(given, name), "a list of integers")


def _check_ranges(given: Architecture) -> None:
    widths, depths = given.widths, given.depths
    if not (_is_real(given.norm_eps) and 0 <= given.norm_eps <= 1):
        _refuse("norm_eps", given.norm_eps, "a number in [0, 1]")
    if not (_is_real(given.norm_momentum) and 0 <= given.norm_momentum <= 1):
        _refuse("norm_momentum", given.norm_momentum, "a number in [0, 1]")
    if not (_is_int(given.pool_kernel, 1, 99) and given.pool_kernel % 2):
        _refuse("pool_kernel", given.pool_kernel, "an odd number of pixels below 100")
    if not _is_int(given.pools, 0, 16):
        _refuse("pools", given.pools, "an integer from 0 to 16")
    if not isinstance(given.pool_shortcut, bool):
        _refuse("pool_shortcut", given.pool_shortcut, "true or false")
    for name in ("class_width", "box_width"):
        value = getattr(given, name)
        if value is not None and not _is_int(value, 1, _LARGEST_WIDTH):
            _refuse(name, value, f"an integer from 1 to {_LARGEST_WIDTH}")
    if widths is not None and not (
        len(widths) == 5
        and all(_is_int(width, 1, _LARGEST_WIDTH) for width in widths)
        and not any(width % 2 for width in widths[1:])
    ):
        _refuse("widths", widths, f"5 integers up to {_LARGEST_WIDTH}, even from the second on")
    if depths is not None and not (
        len(depths) == 3 and all(_is_int(depth, 0, _LARGEST_DEPTH) for depth in depths)
    ):
        _refuse("depths", depths, f"3 integers from 0 to {_LARGEST_DEPTH}")
