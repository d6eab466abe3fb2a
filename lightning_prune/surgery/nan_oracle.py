"""Compares what groups claim of a channel with where NaN goes that is put into it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.group import Group
from lightning_prune.graph.removed_rows import tensor_name
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.compare import noise_like
from lightning_prune.surgery.nan_seen import OtherPathError, Seen
from lightning_prune.surgery.nan_spread import NanSpread
from lightning_prune.surgery.scrambled_copy import scrambled_copy

Forward = Callable[[nn.Module, Any], Any]
_MATRIX = 2
_OUTPUT, _PARTNERS = "the output", "its partners"


@dataclass(frozen=True)
class NanMismatch:
    """A tensor in which a channel's claimed places are not those that NaN reached.

    Attributes:
        group: Name of the group.
        channel: The channel.
        tensor: Name of the tensor, or where else NaN was seen.
        claimed: Places in it that the group's consumers claim for the channel.
        observed: Places that met NaN, or what was seen.
    """

    group: str
    channel: int
    tensor: str
    claimed: tuple[int, ...]
    observed: tuple[int, ...] | str

    def __str__(self) -> str:
        seen = self.observed if isinstance(self.observed, str) else list(self.observed)
        return (
            f"channel {self.channel} of group {self.group!r}: {self.tensor}: claimed "
            f"{list(self.claimed)}, observed {seen}"
        )


@dataclass(frozen=True)
class NanReport:
    """What the NaN oracle saw.

    Attributes:
        classes: Number of channels that were tried.
        places: Number of places of consumers that were claimed and observed.
        mixed: Number of channels that norms or other statistics took in; NaN was stopped there.
        mismatches: Where claimed and observed places differ; empty where all is right.
        not_compared: What could not be compared, each with the reason.
    """

    classes: int
    places: int
    mixed: int
    mismatches: tuple[NanMismatch, ...]
    not_compared: Mapping[str, str]


def nan_oracle(
    model: nn.Module,
    example_input: Any,
    groups: Mapping[str, Group] | None = None,
    classes: int = 20,
    seed: int = 0,
    forward: Forward | None = None,
) -> NanReport:
    """Put NaN into channels of a copy, and compare where it goes with what the groups claim.

    Knows none of the rules by which groups are found. In a scrambled float64 copy the rows of one
    channel, in all of the group's producers and carriers, become NaN. NaN runs through what works
    on channels one by one; where a layer sums over channels the columns that meet NaN are noted,
    and it is stopped. Right is: exactly the columns that the group's consumers claim; both sides of
    every sum, product and norm on the way are NaN at the same places; none in the output.

    Args:
        model: Any network; it is left as it was.
        example_input: A tensor, or a tuple or dict of arguments.
        groups: Its channel groups; None: those of ``build_groups``.
        classes: How many channels are tried, of random groups.
        seed: Seed of the choice.
        forward: How to call the model, ``forward(model, example_input)``; None: the plain call.

    Raises:
        ValueError: ``classes`` is not positive, or no pass with finite values is found.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> found = nan_oracle(net, torch.zeros(1, 3, 8, 8), classes=5)
    >>> found.classes, found.places, found.mismatches
    (5, 5, ())
    """
    if classes < 1:
        raise ValueError(f"classes={classes} is not positive: pass how many channels to try")
    run = forward or call
    if groups is None:
        groups = build_groups(model, example_input, forward)
    net, example = _finite_copy(model, example_input, run)
    spread = NanSpread(net, lambda m: run(m, example))
    chosen = _choice(groups, classes, seed)
    places, mixed, mismatches = 0, 0, []
    left_out: dict[str, str] = {}
    for name, channel in chosen:
        claim = _Claim(groups[name], channel, spread)
        try:
            with spread.poisoned(claim.made) as seen:
                mixed += bool(seen.mixed)
                wrong, agreed = claim.compare(seen, left_out)
        except OtherPathError as error:
            left_out[f"channel {channel} of {name}"] = str(error)
            continue
        places += agreed
        mismatches += wrong
    return NanReport(len(chosen), places, mixed, tuple(mismatches), left_out)


def _choice(groups: Mapping[str, Group], classes: int, seed: int) -> list[tuple[str, int]]:
    """Return random channels, first of as many groups as there are."""
    generator = torch.Generator().manual_seed(seed)
    names = list(groups)
    chosen: dict[tuple[str, int], None] = {}
    total = sum(group.channels for group in groups.values())
    while len(chosen) < min(classes, total):
        for number in torch.randperm(len(names), generator=generator).tolist():
            channels = groups[names[number]].channels
            channel = int(torch.randint(channels, (), generator=generator))
            if len(chosen) < classes:
                chosen[names[number], channel] = None
    return list(chosen)


def _finite_copy(model: nn.Module, example: Any, run: Forward) -> tuple[nn.Module, Any]:
    """Return a scrambled copy and its input, in float64 if it takes that."""
    for dtype in (torch.float64, torch.float32):
        found = scrambled_copy(model, [noise_like(example)], dtype, run)
        if found is not None:
            return found
    raise ValueError(
        f"no pass of {type(model).__name__} gives finite values: check the model on this input"
    )


class _Claim:
    """What a group says of one channel."""

    def __init__(self, group: Group, channel: int, spread: NanSpread) -> None:
        self.group, self.channel, self._spread = group, channel, spread
        self.made: dict[str, Tensor] = {}
        self._read: dict[str, list[tuple[int, Tensor, str]]] = {}
        self._known: dict[str, Tensor] = {}
        names = {id(tensor): name for name, tensor in spread.tensors.items()}
        owned = dict(spread.net.named_modules())
        for member in group.members:
            index = member.index[member.channel == channel]
            for own, dim in member.dims:
                layer = owned.get(member.layer)
                tensor = getattr(layer, own, None) if layer is not None else None
                name = names.get(id(tensor), tensor_name(member.layer, own))
                if name not in spread.tensors:
                    continue
                value = spread.tensors[name]
                mask = torch.zeros(value.shape, dtype=torch.bool).index_fill_(dim, index, True)
                self._known[name] = self._known.get(name, mask) | mask
                if member.role == "consumer":
                    if value.dim() >= _MATRIX:
                        self._read.setdefault(name, []).append((dim, index, member.layer))
                else:
                    self.made[name] = self.made.get(name, mask) | mask

    def compare(self, seen: Seen, left_out: dict[str, str]) -> tuple[list[NanMismatch], int]:
        """Return what differs, and the number of places that agree."""
        wrong: list[NanMismatch] = []
        agreed = 0
        for name in {*self._read, *seen.places}:
            shape = self._spread.tensors[name].shape
            hits = seen.places.get(name, torch.zeros(shape, dtype=torch.bool)).view(shape)
            for dim, index, layer in self._read.get(name, ()):
                if name not in self._spread.read:
                    left_out[name] = "no contraction of the pass takes it, or it is computed"
                    continue
                observed = _places(hits & self._known[name], dim)
                if set(index.tolist()) <= set(observed.tolist()):
                    agreed += len(index)
                elif any(layer == one or one.startswith(f"{layer}.") for one in seen.lost):
                    left_out[name] = "its weight is computed from the input"
                else:
                    wrong.append(self._mismatch(name, index, observed))
            extra = hits & ~self._known.get(name, torch.zeros(shape, dtype=torch.bool))
            if extra.any():
                dims = [dim for dim, _, _ in self._read.get(name, ())]
                dim = dims[0] if dims else _narrowest(extra)
                claimed = [index for d, index, _ in self._read.get(name, ()) if d == dim]
                wrong.append(self._mismatch(name, _joined(claimed), _places(hits, dim)))
        for fault in seen.faults:
            wrong.append(NanMismatch(self.group.name, self.channel, _PARTNERS, (), fault))
        if seen.reaches_output:
            wrong.append(NanMismatch(self.group.name, self.channel, _OUTPUT, (), "NaN"))
        return wrong, agreed

    def _mismatch(self, name: str, claimed: Tensor, observed: Tensor) -> NanMismatch:
        return NanMismatch(
            self.group.name,
            self.channel,
            name,
            tuple(claimed.sort()[0].tolist()),
            tuple(observed.tolist()),
        )


def _places(mask: Tensor, dim: int) -> Tensor:
    rest = [d for d in range(mask.dim()) if d != dim]
    return (mask.any(dim=rest) if rest else mask).nonzero().flatten()


def _narrowest(mask: Tensor) -> int:
    """Return the axis along which the fewest places are set."""
    sizes = [len(_places(mask, dim)) / mask.shape[dim] for dim in range(mask.dim())]
    return sizes.index(min(sizes))


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)
