"""Plain data as one tensor: what a state dict can hold whatever stores it."""

import json
from typing import Any

import torch
from torch import Tensor


def to_json_tensor(content: Any) -> Tensor:
    """Return plain data as JSON in bytes, (n,) uint8; the same data always give the same bytes."""
    text = json.dumps(content, separators=(",", ":"), sort_keys=True)
    # A list, not a buffer view: safetensors and weights_only both want plain owned storage.
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def from_json_tensor(raw: Any, largest: int) -> Any:
    """Return what ``to_json_tensor`` was given.

    Args:
        raw: What a state dict of anybody holds in its place.
        largest: Bytes that it may have.

    Raises:
        ValueError: it is no such tensor, larger, or no JSON.
        RecursionError: it is nested too deeply.

    >>> to_json_tensor({"a": 1}).tolist()
    [123, 34, 97, 34, 58, 49, 125]
    >>> from_json_tensor(to_json_tensor({"a": [1, 2]}), 100)
    {'a': [1, 2]}
    """
    if not isinstance(raw, Tensor) or raw.dtype != torch.uint8 or raw.ndim != 1:
        raise ValueError("not a 1-D uint8 tensor")
    if raw.numel() > largest:
        raise ValueError(f"{raw.numel()} bytes")
    return json.loads(raw.cpu().contiguous().numpy().tobytes())
