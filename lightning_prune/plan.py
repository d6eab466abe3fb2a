"""The pruning plan: what every policy produces and everything downstream consumes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PruningPlan:
    """Which channels of which groups are kept.

    Attributes:
        keep: Group name -> kept channel indices, int64, sorted, unique, at least one.
        channels: Group name -> number of channels C before pruning.

    Raises:
        ValueError: an index outside [0, C), an empty or unsorted ``keep``, or unequal names.

    >>> plan = PruningPlan({"conv1": torch.tensor([0, 2])}, {"conv1": 4})
    >>> plan.removed("conv1").tolist(), plan.mask("conv1").tolist()
    ([1, 3], [True, False, True, False])
    """

    keep: Mapping[str, Tensor] = field(default_factory=dict)
    channels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.keep) != set(self.channels):
            odd = sorted(set(self.keep) ^ set(self.channels))
            raise ValueError(f"keep and channels name different groups: {odd}")
        for name, keep in self.keep.items():
            wide = self.channels[name]
            if keep.dtype != torch.int64 or keep.ndim != 1 or len(keep) == 0:
                raise ValueError(f"keep[{name!r}] must be a non-empty 1-D int64 tensor")
            if int(keep.min()) < 0 or int(keep.max()) >= wide or bool((keep.diff() <= 0).any()):
                raise ValueError(
                    f"keep[{name!r}] must be sorted unique indices in [0, {wide}): {keep.tolist()}"
                )

    def __bool__(self) -> bool:
        return any(len(self.keep[name]) < self.channels[name] for name in self.keep)

    def removed(self, name: str) -> Tensor:
        """Return the indices of a group that go, sorted."""
        return torch.nonzero(~self.mask(name)).flatten()

    def mask(self, name: str) -> Tensor:
        """Return the mask (C,) of a group, True = kept."""
        mask = torch.zeros(self.channels[name], dtype=torch.bool)
        mask[self.keep[name]] = True
        return mask

    def widths(self) -> dict[str, int]:
        """Return the number of kept channels of each group."""
        return {name: len(keep) for name, keep in self.keep.items()}

    def merge(self, other: "PruningPlan") -> "PruningPlan":
        """Join two plans for the same model: a channel stays if neither plan removes it.

        Raises:
            ValueError: the plans disagree on a width, or together remove a whole group.
        """
        keep, channels = dict(self.keep), dict(self.channels)
        for name, kept in other.keep.items():
            if channels.setdefault(name, other.channels[name]) != other.channels[name]:
                raise ValueError(
                    f"{name!r} has {channels[name]} channels in one plan, "
                    f"{other.channels[name]} in the other: plans of different models"
                )
            both = kept if name not in keep else kept[torch.isin(kept, keep[name])]
            if len(both) == 0:
                raise ValueError(f"the two plans together remove every channel of {name!r}")
            keep[name] = both
        return PruningPlan(keep, channels)

    def state_dict(self) -> dict[str, Any]:
        """Return plain data (dicts, ints, tensors) that ``from_state_dict`` reads back."""
        return {"keep": dict(self.keep), "channels": dict(self.channels)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "PruningPlan":
        """Rebuild a plan from its ``state_dict``."""
        keep = {name: kept.cpu() for name, kept in state["keep"].items()}
        return cls(keep, dict(state["channels"]))
