"""Checks of constructor arguments that stages share."""

from collections.abc import Sequence


def check_counts(**given: tuple[int | None, int]) -> None:
    """Refuse counts below their least value: ``name=(value, least)``; None passes."""
    for name, (value, least) in given.items():
        if value is not None and value < least:
            raise ValueError(f"{name}={value}: pass an integer of at least {least}")


def checked_range(keep_range: Sequence[float] | None) -> tuple[float, float] | None:
    """Return the bounds of a layer's width as a pair, or refuse them."""
    if keep_range is None:
        return None
    if len(keep_range) != 2 or not 0 < keep_range[0] <= keep_range[1] <= 1:
        raise ValueError(
            f"keep_range={list(keep_range)}: pass [smallest, largest] fractions of the channels "
            "that stay, 0 < smallest <= largest <= 1, for example [0.25, 0.5]"
        )
    return float(keep_range[0]), float(keep_range[1])


def check_fraction(wanted: str, *, up_to_one: bool = False, **given: float | None) -> None:
    """Refuse fractions that are not in (0, 1), or (0, 1]; None passes.

    Args:
        wanted: What to pass, for the message.
        up_to_one: Whether 1 is allowed.
        given: Name and value of the argument.
    """
    for name, value in given.items():
        if value is not None and not (0 < value < 1 or (up_to_one and value == 1)):
            allowed = "(0, 1]" if up_to_one else "(0, 1)"
            raise ValueError(f"{name}={value} is outside {allowed}: pass {wanted}")


def check_mac_target(mac_target: float | None) -> None:
    """Refuse MAC targets outside (0, 1); None passes."""
    wanted = "the fraction of the dense model's MACs that remains, for example 0.5"
    check_fraction(wanted, mac_target=mac_target)
