"""How far the group norms fell while a run was regularized, read from its metrics."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_NORM, _LOW, _MASKED = "regularize/mean_norm", "regularize/low_channels", "pruning/masked_channels"


@dataclass(frozen=True)
class NormDrop:
    r"""The regularization of one run, up to the first masked channel.

    Attributes:
        first: Mean group norm at the first epoch that was logged.
        last: Mean group norm at the last epoch before channels were masked.
        low_channels: Fraction of channels under the regularizer's threshold at that epoch.
    """

    first: float
    last: float
    low_channels: float | None

    @property
    def drop(self) -> float | None:
        r"""Return by which fraction the mean norm fell, :math:`1 - \text{last} / \text{first}`."""
        return 1 - self.last / self.first if self.first else None


def norm_drop(rows: Iterable[Mapping[str, str | None]]) -> NormDrop | None:
    """Return how far the group norms fell before masking, or None where nothing was logged.

    Masks make norms zero by themselves, so rows from the first masked channel on do not count.

    Args:
        rows: Rows of ``metrics.csv`` as ``csv.DictReader`` gives them; empty cells are absent
            values. Of a step that was repeated after a resume, the later row counts.

    Example:
        >>> rows = [
        ...     {"step": "9", "regularize/mean_norm": "2.0", "regularize/low_channels": "0.0"},
        ...     {"step": "19", "regularize/mean_norm": "1.5", "regularize/low_channels": "0.25"},
        ...     {"step": "29", "regularize/mean_norm": "0.1", "pruning/masked_channels": "7"},
        ... ]
        >>> found = norm_drop(rows)
        >>> found.drop, found.low_channels
        (0.25, 0.25)
    """
    logged = list(rows)
    masked = [_step(row) for row in logged if _number(row, _MASKED)]
    norms: dict[float, float] = {}
    low: dict[float, float] = {}
    for row in logged:
        step = _step(row)
        if step < min(masked, default=float("inf")):
            for name, values in ((_NORM, norms), (_LOW, low)):
                value = _number(row, name)
                if value is not None:
                    values[step] = value
    if not norms:
        return None
    return NormDrop(norms[min(norms)], norms[max(norms)], low[max(low)] if low else None)


def _step(row: Mapping[str, str | None]) -> float:
    return _number(row, "step") or 0.0


def _number(row: Mapping[str, str | None], name: str) -> float | None:
    text = row.get(name)
    return float(text) if text else None
