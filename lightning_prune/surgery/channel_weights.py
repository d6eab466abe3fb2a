"""The weights of all channels of a live model: their norms, and penalties on their gradients."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from lightning_prune.functional.row_column_sums import RowColumnSums
from lightning_prune.graph.channel_rows import weights_of
from lightning_prune.graph.group import ChannelGroups, Member
from lightning_prune.graph.layer_kinds import scale_of
from lightning_prune.graph.names import modules_by_name
from lightning_prune.plan import PruningPlan

_FIRST_TWO = 2


@dataclass(frozen=True)
class _Part:
    """One weight that holds channels in one or both of its first dimensions, or in a later one."""

    owner: nn.Module
    name: str
    tensor: str
    shape: torch.Size
    dims: tuple[int, ...]

    @property
    def is_late(self) -> bool:
        """Return whether it is a later dimension, as of an embedding of positions (1, N, C)."""
        return self.dims[0] >= _FIRST_TWO

    def view(self, values: Tensor) -> Tensor:
        """Return the weight, or its gradient, with a later dimension in front."""
        return values.movedim(self.dims[0], 0) if self.is_late else values

    @property
    def weight(self) -> nn.Parameter:
        # Not getattr: with hundreds of tensors a step the look-up itself would count.
        weight = self.owner._parameters[self.tensor]
        assert weight is not None
        return weight


def _weights(layer: nn.Module, member: Member, batch_norms_only: bool) -> Iterator[tuple[str, int]]:
    """Yield the weights that count: no PReLU's, no depthwise ones (as in torch-pruning)."""
    scale = scale_of(layer)
    if scale is None and isinstance(layer, _InstanceNorm) and not batch_norms_only:
        scale = "weight"
    if scale is not None:
        yield from ((name, dim) for name, dim in member.dims if name == scale)
    elif member.role != "carrier" and not batch_norms_only:
        yield from weights_of(layer, member)


class ChannelWeights:
    """The weights that belong to the channels of some groups, joined in one vector of channels.

    A channel's weights are its rows in the producers, its columns in the consumers and its scale
    in the norms; no biases, no depthwise weights. The positions are worked out once; weights and
    gradients are looked up at each call, so that the model may move and its parameters may be
    replaced. After a cut build it again.

    Args:
        model: The live model.
        groups: Its channel groups.
        names: Which of them; None: all.
        batch_norms_only: Only the scales of batch norms (and of custom layers that have some).

    Attributes:
        names: Names of the groups, in the order of the channels.
        widths: Number of channels of each.
        group: (C,) int64, the group of every channel, as a position in ``names``.
        counts: (C,) number of weights of every channel.

    >>> from lightning_prune.graph.trace import trace_groups
    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
    >>> _ = net[0].weight.data.copy_(torch.tensor([[3.0], [1.0]]))
    >>> _ = net[2].weight.data.copy_(torch.tensor([[4.0, 0.0]]))
    >>> weights = ChannelWeights(net, trace_groups(net, torch.zeros(1, 1)))
    >>> weights.squares().tolist(), weights.counts.tolist()
    ([25.0, 1.0], [2, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        groups: ChannelGroups,
        names: Sequence[str] | None = None,
        batch_norms_only: bool = False,
    ) -> None:
        self.names = tuple(groups if names is None else names)
        self.widths = [groups[name].channels for name in self.names]
        self.group = torch.repeat_interleave(
            torch.arange(len(self.names)), torch.tensor(self.widths, dtype=torch.int64)
        )
        self.counts = torch.zeros(len(self.group), dtype=torch.int64)
        self._parts: list[_Part] = []
        self._sums: tuple[RowColumnSums, ...] = ()
        self._position = self._channel = torch.zeros(0, dtype=torch.int64)
        self._compile(modules_by_name(model), groups, batch_norms_only)

    def _compile(
        self, modules: dict[str, nn.Module], groups: ChannelGroups, batch_norms_only: bool
    ) -> None:
        found: dict[tuple[str, str], dict[int, list[tuple[int, Member]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        first = 0
        for name, width in zip(self.names, self.widths, strict=True):
            for member in groups[name].members:
                for tensor, dim in _weights(modules[member.layer], member, batch_norms_only):
                    found[member.layer, tensor][dim].append((first, member))
            first += width
        for (layer, tensor), dims in found.items():
            shape = modules[layer].get_parameter(tensor).shape
            early = tuple(dim for dim in sorted(dims) if dim < _FIRST_TWO)
            late = [(dim,) for dim in dims if dim >= _FIRST_TWO]
            self._parts += [
                _Part(modules[layer], layer, tensor, shape, own) for own in [early, *late] if own
            ]
        self._parts.sort(key=lambda part: part.is_late)  # what the compiled kernel reads first
        positions, channels, length = [], [], 0
        for part in self._parts:
            for dim in part.dims:
                for start, member in found[part.name, part.tensor][dim]:
                    positions.append(member.index + length)
                    channels.append(member.channel + start)
                    each = part.shape.numel() // part.shape[dim]
                    self.counts.index_add_(0, channels[-1], torch.full_like(channels[-1], each))
                length += part.shape[dim]
        if positions:
            self._position, self._channel = torch.cat(positions), torch.cat(channels)
        self._length = length

    def __len__(self) -> int:
        return len(self.group)

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return self._parts[0].weight.device if self._parts else torch.device("cpu")

    def _current(self) -> tuple[RowColumnSums, ...]:
        """Return the sums over the weights as they are now: moved or replaced ones are found."""
        weights = [part.weight for part in self._parts]
        known = [address for one in self._sums for address in one.addresses]
        if not self._sums or known != [weight.data_ptr() for weight in weights]:
            early = [(p.weight, p.dims) for p in self._parts if not p.is_late]
            late = [(p.view(p.weight), (0,)) for p in self._parts if p.is_late]
            self._sums = tuple(
                RowColumnSums([weight for weight, _ in some], [dims for _, dims in some])
                for some in (early, late)
                if some
            )
            device = self.device
            for name in ("_position", "_channel", "group", "counts"):
                setattr(self, name, getattr(self, name).to(device))
        for part, weight in zip(self._parts, weights, strict=True):
            if weight.shape != part.shape:
                raise RuntimeError(
                    f"{part.name}.{part.tensor} was {tuple(part.shape)} and is "
                    f"{tuple(weight.shape)}: the model was cut; build the groups and what was "
                    "made of them again"
                )
        return self._sums

    @torch.no_grad()
    def squares(self) -> Tensor:
        """Return the sum of the squares of every channel's weights: (C,) float64.

        Raises:
            RuntimeError: the model was cut since.
        """
        parts = [sums.squares() for sums in self._current()]
        sums = torch.cat(parts) if parts else torch.zeros(0)
        # float64 on MPS does not exist, and nowhere else does it cost anything for so few numbers.
        kind = torch.float32 if self.device.type == "mps" else torch.float64
        total = torch.zeros(len(self), dtype=kind, device=self.device)
        return total.index_add_(0, self._channel, sums[self._position].to(kind))

    def norms(self) -> Tensor:
        r"""Return the root mean square of every channel's weights, :math:`I_k`: (C,) float64."""
        return (self.squares() / self.counts.clamp(min=1)).sqrt_()

    @torch.no_grad()
    def add_to_gradients(
        self, strength: Tensor, parameters: Collection[int] | None = None, sign: bool = False
    ) -> None:
        r"""Add each channel's strength times its weights to the gradients.

        A weight that belongs to two channels, as row of one and column of another, gets both.
        Parameters that are frozen or have no gradient are left alone.

        Args:
            strength: (C,) strengths.
            parameters: ``id`` of the parameters that may be touched; None: all.
            sign: Add strength times the sign of the weights.

        Raises:
            RuntimeError: the model was cut since.
        """
        sums = self._current()
        scale = torch.zeros(self._length, device=self.device)
        scale[self._position] = strength.to(scale)[self._channel]
        grads: list[Tensor | None] = []
        for part in self._parts:
            weight = part.weight
            grad = weight.grad
            wanted = parameters is None or id(weight) in parameters
            if grad is None or not wanted or not weight.requires_grad or grad.is_sparse:
                grads.append(None)
            else:
                grads.append(part.view(grad))
        first = 0
        for one in sums:
            own, grads = grads[: len(one.weights)], grads[len(one.weights) :]
            if any(grad is not None for grad in own):
                one.add_to(own, scale[first : first + len(one)], sign)
            first += len(one)

    def keeps(self, plan: PruningPlan) -> Tensor:
        """Return which channels a plan keeps, those of groups it does not name included: (C,)."""
        masks = [
            plan.mask(name) if name in plan.keep else torch.ones(width, dtype=torch.bool)
            for name, width in zip(self.names, self.widths, strict=True)
        ]
        kept = torch.cat(masks) if masks else torch.ones(0, dtype=torch.bool)
        return kept.to(self.device)

    def trainable(self) -> bool:
        """Return whether any of the weights is trained."""
        return any(part.weight.requires_grad for part in self._parts)

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Return the part of a (C,) vector that belongs to each group, by the group's name."""
        return dict(zip(self.names, values.split(self.widths), strict=True))
