"""What a file has to pass before it is written."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""Gives the outputs of a file for its inputs."""


@dataclass(frozen=True)
class Gate:
    """How a file compares with the checkpoint.

    Attributes:
        kind: ``difference`` (of outputs: smaller is better) or ``metric`` (larger is better).
        values: Of the file, by name.
        reference: Of the checkpoint, by name; empty for differences.
        limits: What decides: the largest difference, or the least value of a metric.
        images: How many inputs it was measured on.
        data: Which inputs these are, in words.
    """

    kind: str
    values: Mapping[str, float]
    reference: Mapping[str, float]
    limits: Mapping[str, float]
    images: int
    data: str

    @property
    def passed(self) -> bool:
        """Return whether all limits are kept; NaN keeps none."""
        if self.kind == "difference":
            return all(self.values[name] <= limit for name, limit in self.limits.items())
        return all(self.values[name] >= limit for name, limit in self.limits.items())

    @property
    def sentence(self) -> str:
        """Return what was found, beside what is allowed."""
        parts = []
        for name, limit in self.limits.items():
            value = f"{self.values[name]:.3g}"
            if self.kind == "difference":
                parts.append(f"{name} differ by {value} at most (allowed {limit:.3g})")
            else:
                value = f"{self.values[name]:.4f}"
                dense = self.reference.get(name)
                beside = "" if dense is None else f", the checkpoint has {dense:.4f}"
                parts.append(f"{name} {value}{beside} (least allowed {limit:.4f})")
        return f"{'; '.join(parts)}; {self.images} {self.data}"

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; NaN and infinity, which JSON does not know, as null."""
        plain = asdict(self) | {"passed": self.passed}
        for key in ("values", "reference", "limits"):
            plain[key] = {name: _plain(value) for name, value in plain[key].items()}
        return plain


class Judge(Protocol):
    """Compares what a file gives on real inputs with what the checkpoint gives."""

    def exact(self, run: Run) -> Gate:
        """Judge a file that computes as the checkpoint does."""
        ...

    def close(self, run: Run) -> Gate:
        """Judge a file in 8 bits, which may lose a little."""
        ...


def _plain(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None
