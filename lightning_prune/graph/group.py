"""Channel groups: the tensors of a network whose channels must shrink together."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal, get_args

from torch import Tensor

from lightning_prune.graph.layer_kinds import Role
from lightning_prune.graph.names import layer_of

Norms = Literal["exact", "plain"]
"""Whether norms count cut channels as zeros (masked = cut), or take statistics of those left."""

Attention = Literal["heads", "width", "both"]
"""What of attention goes: whole heads, the same part of the width of every head, or both."""

Products = tuple[tuple[float, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Member:
    """One layer's part in a group.

    A layer may have several: in different roles, in different tensors, or of different positions.

    Attributes:
        layer: Name of the layer as in ``named_modules()``.
        role: What the layer does with the channels.
        index: (n,) int64, positions along the dimension that ``dims`` gives for each tensor.
        channel: (n,) int64, the group's channel at each of these positions.
        dims: Tensors of the layer (parameters or buffers, by their names in it) that hold the
            channels, each with the dimension that ``index`` counts.
        shows: Whether the layer's output shows the channels as its consumers see them; None: as
            a producer does.
    """

    layer: str
    role: Role
    index: Tensor
    channel: Tensor
    dims: tuple[tuple[str, int], ...] = ()
    shows: bool | None = None

    @property
    def is_source(self) -> bool:
        """Return whether activations of the channels are read at this layer's output."""
        return self.role == "producer" if self.shows is None else self.shows


@dataclass(frozen=True)
class Number:
    """A number in a forward pass that states how many channels there are.

    Attributes:
        size: The number, as far as the sizes of tensors show.
        modules: Names of the modules that were running, the outermost first.
        place: File and line in a user's code, or "".
    """

    size: int
    modules: tuple[str, ...]
    place: str


@dataclass(frozen=True)
class Statistics:
    """A norm that takes statistics over channels of a group.

    Attributes:
        layer: Name of the norm.
        size: How many positions it takes them over, or over which its groups lie.
        index: (n,) int64, the group's positions among them.
        channel: (n,) int64, the group's channel at each.
    """

    layer: str
    size: int
    index: Tensor
    channel: Tensor


@dataclass(frozen=True)
class Scaled:
    r"""Rows that are multiplied by :math:`\sqrt{w / C}` where w of a group's C channels stay.

    Those of queries whose scores are divided by the root of the width that a head has: cut by
    themselves they would be divided by less.

    Attributes:
        layer: Name of the layer.
        dims: Its tensors, each with the dimension that ``index`` counts.
        index: (n,) int64, the rows.
    """

    layer: str
    dims: tuple[tuple[str, int], ...]
    index: Tensor


@dataclass(frozen=True)
class Scores:
    """Rows of queries and keys whose products are scores of attention, in pairs.

    Attributes:
        queries: Name of the layer that makes the queries.
        query: (n,) int64, its rows.
        keys: Name of the layer that makes the keys.
        key: (n,) int64, its row that each of the queries' is multiplied with.
        channel: (n,) int64, the group's channel of each pair.
    """

    queries: str
    query: Tensor
    keys: str
    key: Tensor
    channel: Tensor


@dataclass(frozen=True)
class Size:
    """A number in a module that is proportional to the width of a group.

    ``num_heads``, ``groups``, ``normalized_shape``: a cut changes what the forward pass reads.
    Where several groups name the same number it is proportional to each of them.

    Attributes:
        layer: Name of the module.
        attribute: Its attribute, an int or a tuple or list of them.
        place: Which entry of a tuple or list; None: the attribute is an int.
    """

    layer: str
    attribute: str
    place: int | None = None


@dataclass(frozen=True)
class Group:
    """Channels that must be kept or removed together, named after their root layer.

    Attributes:
        name: Name of the root: the first layer of the forward pass that makes these channels.
        channels: Number of channels C.
        members: Every layer that makes, carries or reads them.
        bundle: Channels of the layers that one channel of the group stands for: they can only go
            together (convolutions of several groups).
        step: A narrower width is a multiple of it (norm groups).
        mixed_by: Layers whose statistics change with the width, so that the cut model differs from
            the masked one.
        products: What of the MACs that belong to no layer (attention, graph convolution, functional
            calls) goes with the width: tuples (fraction of them, names of the groups whose kept
            fractions multiply; a name twice is a square). Each stands with its first group.
        numbers: Sizes of the channels that the forward pass states as numbers.
        sizes: Numbers in modules that are proportional to the width.
        norms: Norms that take statistics over the channels.
        scaled: Rows of queries whose scores are divided by the root of the width.
        scores: Rows whose products, summed over the channels, are scores of attention.
    """

    name: str
    channels: int
    members: tuple[Member, ...]
    bundle: int = 1
    step: int = 1
    mixed_by: tuple[str, ...] = ()
    products: Products = ()
    numbers: tuple[Number, ...] = ()
    sizes: tuple[Size, ...] = ()
    norms: tuple[Statistics, ...] = ()
    scaled: tuple[Scaled, ...] = ()
    scores: tuple[Scores, ...] = ()

    def layers(self, role: Role) -> tuple[str, ...]:
        """Return the names of the layers with this role, in the order of the forward pass."""
        return tuple(dict.fromkeys(m.layer for m in self.members if m.role == role))

    @property
    def root(self) -> str:
        """Return the layer that the group is named after; a second group of it is ``root:2``."""
        producers = self.producers
        return self.name if self.name in producers or not producers else producers[0]

    @property
    def producers(self) -> tuple[str, ...]:
        """Return the layers whose rows are the channels: the root first, then those tied to it.

        Of a parametrized layer itself, not of the module that holds what its weight is made of.
        """
        return tuple(dict.fromkeys(map(layer_of, self.layers("producer"))))

    @property
    def sources(self) -> tuple[Member, ...]:
        """Return the members at whose outputs the channels' activations are read."""
        return tuple(member for member in self.members if member.is_source)

    def round_to(self, multiple: int) -> int:
        """Return what narrower widths are multiples of where layers want multiples of a number.

        >>> Group("gru", 16, (), bundle=4, step=1).round_to(8)  # 2 bundles are 8 channels
        2
        """
        rounded: int = math.lcm(self.step, multiple // math.gcd(multiple, self.bundle))
        return rounded


def _mixed(group: Group, norms: Norms) -> Group:
    """Name the norms over a group's channels that its cut changes."""
    names = tuple(dict.fromkeys(norm.layer for norm in group.norms))
    rest = tuple(name for name in group.mixed_by if name not in names)
    return replace(group, mixed_by=rest + names if norms == "plain" else rest)


def _makers(group: Group) -> set[str]:
    """Return the layers whose rows are the channels, also those that compute their weight."""
    return {name for holder in group.producers for name in (holder, layer_of(holder))}


@dataclass(frozen=True)
class ChannelGroups(Mapping[str, Group]):
    """All groups of a network, in the order of the forward pass.

    Attributes:
        groups: Group of each root's name.
        refused: Layers that make channels but cannot be pruned, each with the reason.
        order: Names of all layers, in the order of the forward pass.
        norms: "exact": norms over channels that a cut narrows count those as the zeros that they
            were, so that the cut model gives what the masked one gave; "plain": they take
            statistics of the channels that are left.
        others: Name of a group -> groups of the same layers by another factor of their rows.
        attention: Whether groups of attention are heads, their width, or both.
    """

    groups: dict[str, Group]
    refused: dict[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    norms: Norms = "exact"
    others: Mapping[str, tuple[Group, ...]] = field(default_factory=dict)
    attention: Attention = "heads"

    def __getitem__(self, name: str) -> Group:
        return self.groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def with_norms(self, norms: Norms) -> "ChannelGroups":
        """Return the same groups with norms over their channels that are exact or plain.

        With plain ones the cut model differs from the masked one: ``mixed_by`` names those norms.

        Args:
            norms: "exact" or "plain".

        Raises:
            ValueError: it is neither.

        >>> from torch import arange
        >>> mean = Statistics("norm", 4, arange(4), arange(4))
        >>> groups = ChannelGroups({"conv": Group("conv", 4, (), norms=(mean,))})
        >>> groups["conv"].mixed_by, groups.with_norms("plain")["conv"].mixed_by
        ((), ('norm',))
        """
        if norms not in get_args(Norms):
            raise ValueError(
                f"norms={norms!r}: pass 'exact' (norms count cut channels as zeros) or 'plain' "
                "(they take statistics of those left)"
            )
        if norms == self.norms:
            return self
        groups = {name: _mixed(group, norms) for name, group in self.groups.items()}
        others = {n: tuple(_mixed(g, norms) for g in some) for n, some in self.others.items()}
        return replace(self, groups=groups, norms=norms, others=others)

    def group_of(self, layer: str) -> Group:
        """Return the group whose channels a layer makes, the first where it makes several.

        Raises:
            KeyError: the layer is unknown or cannot be pruned; the message says why.
        """
        return self.groups_of(layer)[0]

    def groups_of(self, layer: str) -> tuple[Group, ...]:
        """Return the groups whose channels a layer makes: heads and their width, for example.

        Raises:
            KeyError: the layer is unknown or cannot be pruned; the message says why.
        """
        found = tuple(group for group in self.groups.values() if layer in _makers(group))
        if found:
            return found
        if layer in self.refused:
            raise KeyError(f"layer {layer!r} cannot be pruned: {self.refused[layer]}")
        near = get_close_matches(layer, self.prunable_layers, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see the list of layers"
        raise KeyError(f"no layer {layer!r} that makes channels: {hint}")

    @property
    def prunable_layers(self) -> tuple[str, ...]:
        """Return the names of all prunable layers, in the order of the forward pass."""
        names = {name for group in self.groups.values() for name in _makers(group)}
        return tuple(name for name in self.order if name in names)

    def select(self, patterns: list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
        """Return the names of the groups with a producer matched by a name or glob pattern.

        A layer that makes channels of several groups selects all of them; the name of one of them
        (``attn.qkv:2``) selects that one.

        Args:
            patterns: Layer names or shell patterns (``backbone.*``); None selects every group.

        Raises:
            KeyError: a pattern matches no prunable layer.
        """
        if patterns is None:
            return tuple(self.groups)
        wanted: set[str] = set()
        for pattern in patterns:
            layers = [name for name in self.prunable_layers if fnmatchcase(name, pattern)]
            own = [name for name in self.groups if fnmatchcase(name, pattern)]
            if not layers and not own:
                layers = [self.group_of(pattern).root]
            wanted.update(own, *([g.name for g in self.groups_of(name)] for name in layers))
        return tuple(name for name in self.groups if name in wanted)
