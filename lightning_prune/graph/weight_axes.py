"""Which axes of weights that multiply belong to groups, and which products have them as factors."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from lightning_prune.graph.group import Group, Member
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


def product_parts(groups: Mapping[str, Group]) -> tuple[tuple[float, tuple[str, ...]], ...]:
    r"""Return which fraction of the products of activations has exactly these factors.

    From what ``Group.products`` and ``Group.shared_products`` say of all products with some
    factors at least, :math:`A_S`:

    .. math:: s_T = \sum_{S \supseteq T} (-1)^{|S| - |T|} A_S

    >>> heads = Group("heads", 4, (), products=1.0, shared_products=((("heads", "width"), 0.5),))
    >>> product_parts({"heads": heads, "width": Group("width", 8, (), products=0.5)})
    ((0.5, ('heads',)), (0.5, ('heads', 'width')))
    """
    known: dict[tuple[str, ...], float] = {}
    for name, group in groups.items():
        if group.products:
            known[(name,)] = group.products
        known |= {own: part for own, part in group.shared_products if set(own) <= groups.keys()}
    parts = []
    for own, value in known.items():
        wider = ((s, a) for s, a in known.items() if len(s) > len(own) and set(own) < set(s))
        exact = value + sum((-1) ** (len(s) - len(own)) * a for s, a in wider)
        if exact:
            parts.append((exact, own))
    return tuple(parts)
