"""Numbers as a page writes them, and round ticks for axes."""

import math

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def compact(value: float) -> str:
    """Return a count in three digits and a unit.

    >>> compact(3_012_798), compact(950), compact(0.0123), compact(81_400_000_000)
    ('3.01 M', '950', '0.0123', '81.4 G')
    """
    for unit, letter in _UNITS:
        if abs(value) >= unit:
            return f"{value / unit:.3g} {letter}"
    return f"{value:.3g}"


def bytes_text(value: float) -> str:
    """Return a size in bytes.

    >>> bytes_text(12_300_000), bytes_text(512)
    ('12.3 MB', '512 B')
    """
    for unit, letter in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:.3g} {letter}"
    return f"{value:.0f} B"


def metric_text(value: float) -> str:
    """Return a metric in four digits.

    >>> metric_text(0.41234), metric_text(0.0), metric_text(12345.6), metric_text(0.00001)
    ('0.4123', '0', '12346', '1e-05')
    """
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:.0f}"
    return f"{value:.4f}" if size >= 0.001 else f"{value:.3g}"


def change_text(before: float, after: float) -> str:
    """Return a relative change.

    >>> change_text(200, 90), change_text(100, 100)
    ('-55.0%', '+0.0%')
    """
    return f"{after / before - 1:+.1%}" if before else "-"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return round numbers from low to high, about so many.

    >>> ticks(0, 1), ticks(0.3, 11)
    ([0.0, 0.5, 1.0], [5.0, 10.0])
    """
    span = high - low
    if not span > 0:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * power for unit in (1, 2, 5, 10) if unit * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]
