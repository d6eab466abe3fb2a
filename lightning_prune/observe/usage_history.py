"""Channel usage over the epochs of a run, as plain data."""

from collections.abc import Mapping
from typing import Any

_KEYS = ("channels", "used", "reset")


class UsageHistory:
    """How many channels of each layer there were, were used and were reset, epoch by epoch.

    Attributes:
        epochs: The E epochs.
        layers: Layer -> ``channels``, ``used`` and ``reset``, E numbers each.

    >>> history = UsageHistory()
    >>> history.add(0, {"conv": (8, 6)}, {"conv": 2})
    >>> history.ratios()
    {'conv': 0.75}
    >>> history.total("reset")
    2
    """

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.layers: dict[str, dict[str, list[int]]] = {}

    def __bool__(self) -> bool:
        return bool(self.epochs)

    def add(
        self, epoch: int, usage: Mapping[str, tuple[int, int]], reset: Mapping[str, int]
    ) -> None:
        """Add an epoch, unless it is there.

        Args:
            epoch: The epoch.
            usage: Layer -> its channels and how many of them were used; layers of other epochs
                that are missing here have no channels in this one, and the other way round.
            reset: Layer -> channels that were reset at the epoch's start; those left out: 0.
        """
        if epoch in self.epochs:
            return
        for name in dict.fromkeys([*self.layers, *usage]):
            before = len(self.epochs)
            row = self.layers.setdefault(name, {key: [0] * before for key in _KEYS})
            channels, used = usage.get(name, (0, 0))
            for key, number in zip(_KEYS, (channels, used, reset.get(name, 0)), strict=True):
                row[key].append(number)
        self.epochs.append(epoch)

    def total(self, key: str) -> int:
        """Return the sum of ``channels``, ``used`` or ``reset`` over all layers, last epoch."""
        return sum(row[key][-1] for row in self.layers.values())

    def resets(self) -> int:
        """Return how many channels were reset in all epochs; twice the same counts twice."""
        return sum(sum(row["reset"]) for row in self.layers.values())

    def ratios(self) -> dict[str, float]:
        """Return the ratio of used channels of each layer in the last epoch; 0 without channels."""
        return {
            name: row["used"][-1] / max(1, row["channels"][-1]) for name, row in self.layers.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        layers = {
            name: {key: list(numbers) for key, numbers in row.items()}
            for name, row in self.layers.items()
        }
        return {"epochs": list(self.epochs), "layers": layers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.epochs = list(state["epochs"])
        self.layers = {
            name: {key: list(numbers) for key, numbers in row.items()}
            for name, row in state["layers"].items()
        }
