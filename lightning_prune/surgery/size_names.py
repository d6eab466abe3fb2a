"""Which of several equal numbers may belong to a group, by their names: an order of trials."""

from lightning_prune.graph.group import Group, Size
from lightning_prune.graph.isomorphic import in_runs

_WIDTHS = ("dim", "width", "size", "channel", "feature", "hidden", "embed")
_COUNTS = ("num", "head", "group", "branch", "part")


def suits(size: Size, group: Group) -> bool:
    """Return whether a name does not speak against a number following a group's width.

    Heads have neighbouring rows, and their number is called ``num_heads``; the width of heads has
    rows of each, and is called ``head_dim``.

    >>> import torch
    >>> from lightning_prune.graph.group import Member
    >>> rows, heads = torch.arange(4), torch.tensor([0, 0, 1, 1])
    >>> group = Group("qkv", 2, (Member("qkv", "producer", rows, heads),))
    >>> [suits(Size("attn", name), group) for name in ("num_heads", "head_dim", "h")]
    [True, False, True]
    """
    name = size.attribute.lower()
    is_width = any(word in name for word in _WIDTHS)
    is_count = not is_width and any(word in name for word in _COUNTS)
    wide = [m for m in group.members if m.role == "producer" and len(m.index) > group.channels]
    if not wide:
        return True
    return not (is_width if in_runs(wide[0]) else is_count)
