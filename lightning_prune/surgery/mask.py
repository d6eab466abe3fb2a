"""Holds planned channels at zero while a model trains."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.functional.make_zeroer import make_zeroer
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.graph.layer_kinds import divided_by_length
from lightning_prune.graph.names import modules_by_name
from lightning_prune.graph.removed_rows import removed_rows, tensor_name
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.held_mask import HeldMask


@dataclass(frozen=True)
class ChannelSlice:
    """The removed channels' part of one tensor: ``tensor.index_select(dim, index)``."""

    owner: nn.Module
    layer: str
    tensor: str
    dim: int
    index: Tensor

    @property
    def name(self) -> str:
        """Return the tensor's name in the model."""
        return tensor_name(self.layer, self.tensor)

    @property
    def values(self) -> Tensor:
        """Return the tensor that is sliced."""
        value = getattr(self.owner, self.tensor)
        assert isinstance(value, Tensor)
        return value


def channel_slices(
    model: nn.Module, groups: ChannelGroups, plan: PruningPlan
) -> list[ChannelSlice]:
    """List every part of every tensor that belongs to a removed channel, statistics included.

    Raises:
        KeyError: the plan names a group that the model does not have.
        ValueError: the plan was made for another width.
    """
    modules = modules_by_name(model)
    return [
        ChannelSlice(modules[axis.layer], axis.layer, axis.tensor, axis.dim, index)
        for axis, index in removed_rows(groups, plan).items()
    ]


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class _Part:
    """All that one tensor holds of removed channels: rows, columns or both."""

    owner: nn.Module
    name: str
    tensor: str
    removed: Mapping[int, Tensor]

    @property
    def values(self) -> Tensor:
        value = getattr(self.owner, self.tensor)
        assert isinstance(value, Tensor)
        return value.detach()

    @property
    def is_parameter(self) -> bool:
        """Return whether it is trained; statistics and other buffers are not masked."""
        return self.tensor in self.owner._parameters

    def region(self) -> Tensor:
        """Return the mask of the tensor's shape, True = belongs to a removed channel."""
        region = torch.zeros(self.values.shape, dtype=torch.bool)
        for dim, index in self.removed.items():
            region.index_fill_(dim, index, True)
        return region

    def same(self, other: "_Part") -> bool:
        return self.removed.keys() == other.removed.keys() and all(
            torch.equal(index, other.removed[dim]) for dim, index in self.removed.items()
        )


def _parts(model: nn.Module, groups: ChannelGroups, plan: PruningPlan) -> dict[str, _Part]:
    found: dict[str, dict[int, ChannelSlice]] = defaultdict(dict)
    for part in channel_slices(model, groups, plan):
        if len(part.index) and (part.tensor, part.dim) not in divided_by_length(part.owner):
            found[part.name][part.dim] = part
    parts = {}
    for name, slices in found.items():
        first = next(iter(slices.values()))
        removed = {dim: part.index for dim, part in slices.items()}
        parts[name] = _Part(first.owner, name, first.tensor, removed)
    return parts


class ChannelMask(HeldMask):
    """Zeroes the removed channels of a plan: producers' rows and biases, norms, consumers' columns.

    Running statistics are left alone: with the consumers' columns at zero the masked network
    equals the cut one whatever the activation does at zero.

    Zeros do not come back by themselves: with a row and its norm at zero no gradient reaches
    them, and the running variance decays. ``remember`` keeps what is masked, ``restore`` brings it
    back.

    Args:
        model: The live model, or an averaged copy of it.
        groups: Its channel groups.
        plan: What to hold at zero.

    >>> from lightning_prune.graph.trace import trace_groups
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> _ = nn.init.ones_(net[0].weight)
    >>> groups = trace_groups(net, torch.zeros(1, 2))
    >>> mask = ChannelMask(net, groups, PruningPlan({"0": torch.tensor([0, 2])}, {"0": 3}))
    >>> mask.remember()
    >>> mask.apply()
    >>> net[0].weight.tolist()
    [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    >>> rest = mask.restore()
    >>> net[0].weight.tolist(), bool(rest.plan)
    ([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], False)
    """

    def __init__(self, model: nn.Module, groups: ChannelGroups, plan: PruningPlan) -> None:
        super().__init__()
        self.plan = plan
        self._model, self._groups = model, groups
        self._parts = _parts(model, groups, plan)
        zeroed = [part for part in self._parts.values() if part.is_parameter]
        place = {module: number for number, module in enumerate(model.modules())}
        # Last first: those an optimizer has just written are still in the cache.
        self._zeroed = sorted(zeroed, key=lambda part: place[part.owner], reverse=True)
        # Where each tensor lay when its zeroer was made; 0: there is none yet.
        self._zeroers: list[tuple[int, Callable[[], None]]] = [(0, _nothing)] * len(self._zeroed)
        self._originals: dict[str, Tensor] | None = None

    @torch.no_grad()
    def apply(self) -> None:
        """Zero the removed channels now."""
        for number, (part, (place, fill)) in enumerate(
            zip(self._zeroed, self._zeroers, strict=True)
        ):
            # Not getattr: with hundreds of tensors a step the look-up itself would count.
            values = part.owner._parameters[part.tensor]
            assert values is not None
            if place != values.data_ptr():
                fill = make_zeroer(values, part.removed)
                self._zeroers[number] = values.data_ptr(), fill
            fill()

    def clear_gradients(self) -> None:
        """Zero the gradients of the removed channels: what they are goes into no norm of all."""
        for part in self._zeroed:
            gradient = part.owner.get_parameter(part.tensor).grad
            if gradient is not None:
                for dim, index in part.removed.items():
                    gradient.index_fill_(dim, index.to(gradient.device), 0)

    @torch.no_grad()
    def violations(self) -> list[str]:
        """Return the tensors in which a removed channel is not zero."""
        return [
            part.name
            for part in self._parts.values()
            if part.is_parameter
            and any(
                bool(part.values.index_select(dim, index.to(part.values.device)).any())
                for dim, index in part.removed.items()
            )
        ]

    # --- the way back -----------------------------------------------------------------------

    @torch.no_grad()
    def remember(self, earlier: Mapping[str, Any] | None = None) -> None:
        """Keep the values of the removed channels, norm statistics included; before ``apply``.

        Args:
            earlier: ``originals()`` of an earlier mask of the same model, such as a checkpoint's:
                what that one had masked already is taken from it, not from the zeros in the model.
        """
        plan = PruningPlan() if earlier is None else PruningPlan.from_state_dict(earlier["plan"])
        before = _parts(self._model, self._groups, plan)
        values = {} if earlier is None else earlier["values"]
        self._originals = {}
        for name, part in self._parts.items():
            if name in before and part.same(before[name]):
                self._originals[name] = values[name]
                continue
            full = part.values.to("cpu", copy=True)
            if name in before:
                full[before[name].region()] = values[name].to(full)
            self._originals[name] = full[part.region()]

    def originals(self) -> dict[str, Any]:
        """Return what ``remember`` kept, as plain data: the plan, and the values by tensor's name.

        Raises:
            RuntimeError: ``remember`` was not called.
        """
        if self._originals is None:
            raise RuntimeError("nothing to restore: call remember() before the mask is applied")
        return {"plan": self.plan.state_dict(), "values": dict(self._originals)}

    @torch.no_grad()
    def restore(self, names: Iterable[str] | None = None) -> "ChannelMask":
        """Restore the channels of some groups, as they were, and stop holding.

        What belongs to a channel of another masked group too (a column of the restored row) stays
        zero, and comes back with that group.

        Args:
            names: Groups whose mask is lifted; None: all.

        Returns:
            The mask of the other groups, with their values remembered; ``hold`` it.

        Raises:
            KeyError: a group has no mask.
            RuntimeError: ``remember`` was not called.
        """
        originals = self.originals()["values"]
        lifted = set(self.plan.keep if names is None else names)
        unknown = sorted(lifted - self.plan.keep.keys())
        if unknown:
            raise KeyError(f"no mask on {', '.join(unknown)}: masked are {list(self.plan.keep)}")
        rest = ChannelMask(self._model, self._groups, _without(self.plan, lifted))
        rest._originals = {}
        self.release()
        for name, part in self._parts.items():
            region, values = part.region(), part.values
            full = torch.zeros(values.shape, dtype=values.dtype)
            full[region] = originals[name].to(full)
            if name in rest._parts:
                still = rest._parts[name].region()
                rest._originals[name] = full[still]
                region &= ~still
            values.copy_(torch.where(region, full, values.cpu()))
        return rest


def _without(plan: PruningPlan, names: set[str]) -> PruningPlan:
    keep = {name: index for name, index in plan.keep.items() if name not in names}
    return PruningPlan(keep, {name: plan.channels[name] for name in keep})
