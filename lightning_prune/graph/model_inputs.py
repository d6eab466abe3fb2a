"""What of a batch a module's forward pass takes."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves


def model_inputs(model: Any, batch: Any) -> Any:
    """Return the inputs in a batch as ``call`` takes them: a tensor, a tuple or a dict.

    Of a dict the entries that ``forward`` names; the whole dict, as one argument, where it names
    none. Of a tuple or list the first, or as many as ``forward`` cannot do without (a module that
    takes the labels too). A string that a batch begins with is no input but the key of what follows
    it, as of the recording session: without it a module of several readouts runs all of them.

    Args:
        model: The module; its signature decides.
        batch: What the loader gives.

    >>> from torch import nn
    >>> class Net(nn.Module):
    ...     def forward(self, image, scale): ...
    >>> model_inputs(Net(), {"image": 1, "scale": 2, "label": 3})
    {'image': 1, 'scale': 2}
    >>> model_inputs(Net(), [1, 2, 3]), model_inputs(nn.ReLU(), [1, 2])
    ((1, 2), 1)
    >>> model_inputs(nn.ReLU(), ("mouse_1", (1, 2)))
    1
    """
    parameters = _parameters(model)
    if isinstance(batch, Mapping):
        named = {key: value for key, value in batch.items() if key in parameters}
        if named:
            return named
        spreads = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        positional = any(p.kind is not p.VAR_KEYWORD for p in parameters.values())
        return dict(batch) if spreads and not positional else (batch,)
    if not isinstance(batch, tuple | list):
        return batch
    if len(batch) > 1 and isinstance(batch[0], str) and not isinstance(batch[1], str):
        return model_inputs(model, batch[1] if len(batch) == _KEYED else batch[1:])
    needed = [p for p in parameters.values() if p.kind in _POSITIONAL and p.default is p.empty]
    if 1 < len(needed) <= len(batch) and not _fits(batch[0], len(needed)):
        return tuple(batch[: len(needed)])
    first = batch[0]
    return model_inputs(model, first) if isinstance(first, Mapping) else first


def batch_length(batch: Any) -> int:
    """Return the number of images of a batch: the length of its first tensor."""
    return next((len(v) for v in tree_leaves(batch) if isinstance(v, Tensor) and v.ndim), 0)


_KEYED = 2  # (key, batch)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _parameters(model: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(model.forward).parameters
    except (AttributeError, TypeError, ValueError):
        return {}


def _fits(inputs: Any, needed: int) -> bool:
    """Return whether a first entry is itself the arguments: (inputs, labels) of several inputs."""
    return isinstance(inputs, Mapping) or (
        isinstance(inputs, tuple | list) and len(inputs) >= needed
    )
