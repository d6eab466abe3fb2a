"""Which axes of weights that multiply belong to groups, and which products have them as factors."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from lightning_prune.graph.group import Group, Member, Products
from lightning_prune.graph.layers import is_producer
from lightning_prune.graph.removed_rows import COMPUTED


def weight_axes(
    modules: Mapping[str, nn.Module], member: Member, users: Mapping[int, Sequence[str]]
) -> Iterator[tuple[str, int, int]]:
    """Yield layer, dimension and size of the axes of weights that multiply, with a member's rows.

    Args:
        modules: The modules of a network by name.
        member: Its part in a group.
        users: Layers that multiply with a weight, by the weight's ``id``: several share one.
    """
    name = member.layer.partition(COMPUTED)[0]
    layer = modules[name]
    weight_shape: tuple[int, ...] = ()
    if is_producer(layer) and (name != member.layer or hasattr(layer, "weight_g")):
        weight_shape = tuple(layer.weight.shape)  # type: ignore[arg-type]
    seen: set[tuple[str, int]] = set()
    for tensor, dim in member.dims:
        own = getattr(modules[member.layer], tensor, None)
        if not isinstance(own, Tensor):
            continue
        for user in users.get(id(own), ()):
            yield user, dim, own.shape[dim]
        # Of a computed weight (weight norm) the tensors have other names, and the same dimensions.
        if own.ndim == len(weight_shape):
            seen.add((name, dim))
    for found, dim in seen:
        yield found, dim, weight_shape[dim]


def product_parts(groups: Mapping[str, Group]) -> Products:
    """Return which fraction of the MACs that belong to no layer has exactly these factors.

    Groups that are left out keep their widths.

    >>> heads = Group("heads", 4, (), products=((0.5, ("heads", "gone")), (0.5, ("heads", "w"))))
    >>> product_parts({"heads": heads, "w": Group("w", 8, ())})
    ((0.5, ('heads',)), (0.5, ('heads', 'w')))
    """
    found: dict[tuple[str, ...], float] = defaultdict(float)
    for group in groups.values():
        for fraction, names in group.products:
            found[tuple(name for name in names if name in groups)] += fraction
    return tuple((fraction, names) for names, fraction in found.items() if names)
