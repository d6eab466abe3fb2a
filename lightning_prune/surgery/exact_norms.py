"""Makes norms compute what they computed when the channels that were cut were zeros."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_prune.surgery.norm_kind import NormKind, compute_norm, norm_kind

Norms = Literal["exact", "plain"]
"""Whether norms count cut channels as zeros (masked = cut), or take statistics of those left."""

_GROUP = "_channel_group"
_COUNT = "_zero_count"


@dataclass(frozen=True)
class ZeroCount:
    """What a norm from which channels were cut still counts.

    Attributes:
        kind: What it computes.
        counted: Channels that each statistic is taken over when dense; for group norms those of one
            group; for layer norms of a shape the values of that shape.
        widths: Channels left in each group of a group norm; empty for other norms.
    """

    kind: NormKind
    counted: int
    widths: tuple[int, ...] = ()

    @property
    def is_uneven(self) -> bool:
        """Return whether the groups of a group norm have different widths."""
        return len(set(self.widths)) > 1


def count_cut_as_zeros(layer: nn.Module, before: int, kept: Tensor, norms: Norms = "exact") -> bool:
    """Make a norm whose tensors were just narrowed count the channels that are gone as zeros.

    With it the cut network computes what the masked one did. The layer stays the same object with
    the same tensors (each the kept part of what it was, so that optimizer states, averages and
    earlier weights are cut like it), hooks and attributes. Its class becomes one made here that
    inherits from its own, so that ``isinstance`` and its methods stay; a replaced forward of the
    instance would be lost to whoever calls the class's, and a parametrisation can change
    tensors but not statistics. Such layers are copied, pickled, compiled and exported as any other.

    The layer's own sizes (``normalized_shape``, ``num_channels``, ``num_groups``) are set too. A
    group norm that loses whole groups, or any norm that loses nothing, keeps its class.

    Args:
        layer: The norm, after its tensors were narrowed.
        before: Its channels just before that.
        kept: (K,) int64, ascending positions of the channels that stay, of those before.
        norms: "plain" leaves the statistics those of the channels left; only sizes are set.

    Returns:
        Whether the layer is one that can be cut there: False, and nothing was changed, where it is
        no norm of a known kind, or plain groups would have different widths.

    Raises:
        ValueError: ``kept`` is no selection of that many channels.

    >>> norm = nn.LayerNorm(4, elementwise_affine=False)
    >>> wide = norm(torch.tensor([1.0, 3.0, 0.0, 0.0]))
    >>> count_cut_as_zeros(norm, 4, torch.tensor([0, 1]))
    True
    >>> bool((norm(torch.tensor([1.0, 3.0])) - wide[:2]).abs().max() < 1e-6), norm
    (True, LayerNorm((2,), eps=1e-05, elementwise_affine=False, bias=False, of 4 channels))
    """
    places = _checked(before, kept)
    count = zero_count(layer) or _whole_count(layer, before, len(places))
    if count is None:
        return False
    if len(places) == before:
        return True
    if count.kind.statistic == "group":
        count = replace(count, widths=_left(count, before, places))
        if norms == "plain" and count.is_uneven:
            return False
    if norms == "exact":
        set_count(layer, count)
    elif count.widths:
        _set_size(layer, "num_groups", len(count.widths))
    sync_norm_sizes(layer, len(places))
    return True


def zero_count(layer: nn.Module) -> ZeroCount | None:
    """Return what a norm still counts; None where it counts the channels that it has."""
    found: ZeroCount | None = vars(layer).get(_COUNT)
    return found


def set_count(layer: nn.Module, count: ZeroCount | None) -> None:
    """Make a norm count as stated, or, with None, what it has.

    Args:
        layer: The norm; its sizes are left alone, but for the number of groups.
        count: What it counts.
    """
    _undo(layer)
    if count is None:
        return
    if count.widths:
        _set_size(layer, "num_groups", len(count.widths))
        if set(count.widths) == {count.counted}:  # only whole groups are gone
            return
    layer.__class__ = _counting(type(layer))
    setattr(layer, _COUNT, count)
    if count.is_uneven:
        device = next((p.device for p in layer.parameters(recurse=False)), None)
        groups = torch.arange(len(count.widths), device=device)
        widths = torch.tensor(count.widths, device=device)
        layer.register_buffer(_GROUP, groups.repeat_interleave(widths), persistent=False)
    if count.kind.statistic == "layer":
        layer.register_forward_pre_hook(_call_the_layer)


def sync_norm_sizes(layer: nn.Module, channels: int | None = None) -> None:
    """Set the size attributes of a norm from its tensors, or from a number of channels.

    Args:
        layer: Any layer; others than norms are left alone.
        channels: Its channels, where it has no tensors; None: what it states stays.
    """
    shapes = {tuple(p.shape) for p in layer.parameters(recurse=False)}
    if not shapes and channels is not None:
        shapes = {(channels,)}
    if len(shapes) != 1:
        return
    shape, stated = shapes.pop(), getattr(layer, "normalized_shape", None)
    if isinstance(stated, tuple | list | torch.Size) and len(stated) == len(shape):
        _set_size(layer, "normalized_shape", shape)
    elif isinstance(stated, int) and len(shape) == 1:
        _set_size(layer, "normalized_shape", shape[0])
    if isinstance(layer, nn.GroupNorm):
        _set_size(layer, "num_channels", shape[0])


def dense_count(layer: nn.Module, channels: int, groups: int | None) -> ZeroCount | None:
    """Return what a norm of that many channels counts when none has been cut.

    Args:
        layer: The norm, as wide as it was built or narrower.
        channels: Its channels when dense.
        groups: Groups of a group norm when dense; None for others.
    """
    own = zero_count(layer)
    tensor = next(layer.parameters(recurse=False), None)
    width = None if tensor is None else tensor.numel()
    kind = own.kind if own is not None else norm_kind(layer, channels, width)
    return None if kind is None else _dense(kind, channels, groups)


def _dense(kind: NormKind, channels: int, groups: int | None) -> ZeroCount | None:
    if kind.statistic != "group":
        return ZeroCount(kind, channels)
    if not groups or channels % groups:
        return None
    return ZeroCount(kind, channels // groups, (channels // groups,) * groups)


# --- what count_cut_as_zeros does -------------------------------------------------------------


def _set_size(layer: nn.Module, name: str, size: int | tuple[int, ...]) -> None:
    setattr(layer, name, size)


def _checked(before: int, kept: Tensor) -> list[int]:
    places: list[int] = kept.tolist()
    ascending = all(a < b for a, b in pairwise(places))
    if not places or not ascending or places[0] < 0 or places[-1] >= before:
        raise ValueError(
            f"kept is {str(places)[:60]} of {before} channels: pass ascending positions below "
            f"{before}, at least one"
        )
    return places


def _whole_count(layer: nn.Module, before: int, kept: int) -> ZeroCount | None:
    kind = norm_kind(layer, before, kept)
    if kind is None:
        return None
    if kind.axes > 1:
        tensor = next(layer.parameters(recurse=False), None)
        # Without tensors nothing shows which of the axes was cut.
        return None if tensor is None else ZeroCount(kind, before * (tensor.numel() // kept))
    return _dense(kind, before, getattr(layer, "num_groups", None))


def _left(count: ZeroCount, before: int, places: Sequence[int]) -> tuple[int, ...]:
    """Return the widths that groups keep; those that keep nothing are gone."""
    if sum(count.widths) != before:
        raise ValueError(
            f"a group norm of {sum(count.widths)} channels cannot have had {before}: pass its "
            "channels just before this cut"
        )
    group = [g for g, width in enumerate(count.widths) for _ in range(width)]
    left = [group[place] for place in places]
    return tuple(left.count(g) for g in sorted(set(left)))


# --- the class that a layer gets --------------------------------------------------------------


class CountsCutChannels(nn.Module):
    """Base of the classes that norms get: their own class comes next in line."""

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """Compute the norm of the channels that are left; named as its own forward names it."""
        (x,) = (*inputs, *named.values())
        if x.is_nested:
            return torch.nested.as_nested_tensor([self.forward(part) for part in x.unbind()])
        count: ZeroCount = vars(self)[_COUNT]
        group: Tensor | int = 0
        if count.is_uneven:
            group = self._buffers[_GROUP]  # type: ignore[assignment]
        elif count.widths:
            group = count.widths[0]
        return compute_norm(self, count.kind, x, count.counted, group)

    def extra_repr(self) -> str:
        """Return its own text, and of how many channels it is what is left."""
        count: ZeroCount = vars(self)[_COUNT]
        channels = count.counted * max(1, len(count.widths))
        return ", ".join(filter(None, [super().extra_repr(), f"of {channels} channels"]))

    def __reduce_ex__(self, protocol: Any) -> Any:
        made: tuple[Any, ...] = super().__reduce_ex__(protocol)  # type: ignore[assignment]
        return (_empty, (type(self).__mro__[2],), *made[2:])


_classes: dict[type[nn.Module], type[nn.Module]] = {}


def _counting(own: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass of a norm's class that counts cut channels; the same one every time."""
    if own not in _classes:
        named = {n: getattr(own, n) for n in ("__module__", "__qualname__", "__doc__")}
        _classes[own] = type(own.__name__, (CountsCutChannels, own), named)
    return _classes[own]


def _empty(own: type[nn.Module]) -> nn.Module:
    """Return an object that pickle and copy fill; its class is made, and cannot be looked up."""
    counting = _counting(own)
    layer: nn.Module = counting.__new__(counting)
    return layer


def _undo(layer: nn.Module) -> None:
    if zero_count(layer) is None:
        return
    layer.__class__ = type(layer).__mro__[2]
    delattr(layer, _COUNT)
    if _GROUP in layer._buffers:
        delattr(layer, _GROUP)
        layer._non_persistent_buffers_set.discard(_GROUP)
    for key, hook in list(layer._forward_pre_hooks.items()):
        if hook is _call_the_layer:
            del layer._forward_pre_hooks[key]


def _call_the_layer(_layer: nn.Module, _inputs: Any) -> None:
    """Do nothing: with a hook inside, torch's fused encoder layer calls its norms.

    Without one ``nn.TransformerEncoderLayer`` reads their weights and takes plain statistics.
    """
