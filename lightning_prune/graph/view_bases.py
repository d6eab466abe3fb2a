"""What a traced tensor is a view of."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

# Views whose writes are followed back to what they are views of.
VIEWS = {"slice", "select", "view", "_unsafe_view", "permute", "transpose", "t", "unsqueeze",
          "squeeze", "expand", "alias", "detach", "unbind", "split", "split_with_sizes",
          "as_strided"}  # fmt: skip
_BASE = "_channel_labels_base"


def remember_base(name: str, bound: Mapping[str, Any], out: Any) -> None:
    """Note what a result is a view of.

    Args:
        name: The operation.
        bound: Its arguments by name.
        out: Its result, or several.
    """
    for part in out if isinstance(out, list | tuple) else [out]:
        if isinstance(part, Tensor):
            setattr(part, _BASE, (name, bound))


def view_of(tensor: Tensor) -> tuple[str, Mapping[str, Any]] | None:
    """Return the operation that made a view, and its arguments by name; None of no view."""
    found: tuple[str, Mapping[str, Any]] | None = getattr(tensor, _BASE, None)
    return found
