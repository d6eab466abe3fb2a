"""A run epoch by epoch: metrics, learning rate, and the MACs that remain."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """What was measured in each of E epochs; None: not in this one.

    Attributes:
        epochs: (E,) epochs (0-based), ascending.
        metrics: Name -> E values.
        learning_rate: E values at the end of the epochs, of the first optimizer's largest.
        macs_fraction: E fractions of the dense model's MACs that remain.

    >>> history = History()
    >>> history.add(0, {"train/loss": 2.0}, 0.1, 1.0)
    >>> history.add(1, {"train/loss": 1.0, "val/map": 0.5}, 0.1, 0.5)
    >>> history.metrics
    {'train/loss': [2.0, 1.0], 'val/map': [None, 0.5]}
    """

    epochs: list[int] = field(default_factory=list)
    metrics: dict[str, list[float | None]] = field(default_factory=dict)
    learning_rate: list[float | None] = field(default_factory=list)
    macs_fraction: list[float | None] = field(default_factory=list)

    def add(
        self,
        epoch: int,
        metrics: Mapping[str, float],
        learning_rate: float | None,
        macs_fraction: float | None,
    ) -> None:
        """Add an epoch; of a resumed run, in place of what came after the checkpoint."""
        self._forget_from(epoch)
        known = len(self.epochs)
        self.epochs.append(epoch)
        self.learning_rate.append(_finite(learning_rate))
        self.macs_fraction.append(_finite(macs_fraction))
        for name in {**self.metrics, **metrics}:
            values = self.metrics.setdefault(name, [None] * known)
            values.append(_finite(metrics.get(name)))

    def _forget_from(self, epoch: int) -> None:
        kept = sum(one < epoch for one in self.epochs)
        del self.epochs[kept:]
        for values in (self.learning_rate, self.macs_fraction, *self.metrics.values()):
            del values[kept:]

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> "History":
        """Read what ``asdict`` gave."""
        return cls(
            list(content["epochs"]),
            {name: list(values) for name, values in content["metrics"].items()},
            list(content["learning_rate"]),
            list(content["macs_fraction"]),
        )


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
