"""When stages act, in words; epochs are counted from 1."""


def epochs_in_words(first: int, last: int | None) -> str:
    """Return a span of epochs that are counted from 0, as people count them.

    >>> epochs_in_words(1, 3), epochs_in_words(1, None), epochs_in_words(0, None)
    ('in epochs 2 to 4', 'from epoch 2 on', 'from the start')
    """
    if last is None:
        return "from the start" if first == 0 else f"from epoch {first + 1} on"
    return f"in epochs {first + 1} to {last + 1}"


def masks_goal(mac_target: float | None, latency_target: float | None) -> str:
    """Return how far masks go, in words; "" where no target says.

    >>> masks_goal(0.5, None), masks_goal(None, 0.5), masks_goal(None, 12.5)
    ('50% of the MACs remain', '50% of the time remains', '12.5 ms remain')
    """
    if latency_target is not None:
        if latency_target < 1:
            return f"{latency_target:.0%} of the time remains"
        return f"{latency_target:g} ms remain"
    return "" if mac_target is None else f"{mac_target:.0%} of the MACs remain"


def masks_in_words(epochs: tuple[int, int, int], groups: int, target: str, cuts: bool) -> str:
    """Return when groups of layers are masked and cut, and down to what target.

    Args:
        epochs: Epochs of the first mask, of the last, and of the cut.
        groups: How many groups are masked; 0: not known.
        target: How far masks go; "": no target.
        cuts: Whether the masks are cut out.

    >>> masks_in_words((2, 2, 3), groups=5, target="50% of the MACs remain", cuts=False)
    '5 groups of layers are masked at the start of epoch 3 until 50% of the MACs remain'
    """
    first, last, cut = epochs
    when = f"at the start of epoch {first + 1}" if first == last else epochs_in_words(first, last)
    goal = f" until {target}" if target else ""
    layers = f"{groups} groups of layers are" if groups > 1 else "layers are"
    end = f"; cut at the start of epoch {cut + 1} at the latest" if cuts else ""
    return f"{layers} masked {when}{goal}{end}"
