"""The call of the project's first document for loading a cut file."""

import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_prune.surgery.load_pruned_state_dict import load_pruned_state_dict


def load_state_dict_pruned(
    model: nn.Module, state_dict: Mapping[str, Any], strict: bool = False
) -> tuple[nn.Module, list[str], list[str]]:
    """Load weights of a pruned model into the dense module; see ``load_pruned_state_dict``.

    Args:
        model: The module as it was before pruning; it is narrowed in place.
        state_dict: Tensors by name.
        strict: Whether missing and unexpected names are an error.

    Returns:
        The model, the names that the file lacks, and the names that the model lacks.

    Raises:
        ValueError: shapes that no cut of this module has.
        RuntimeError: names are missing or unexpected, and ``strict``.

    Warns:
        UserWarning: no name of the file is one of the model's, so that nothing was loaded.

    >>> narrow = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 2, 1))
    >>> dense = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1))
    >>> model, missing, unexpected = load_state_dict_pruned(dense, narrow.state_dict())
    >>> model is dense, model[0].out_channels, missing, unexpected
    (True, 5, [], [])
    """
    keys = load_pruned_state_dict(model, state_dict, strict)
    if len(keys.unexpected_keys) == len(state_dict):
        warnings.warn(
            f"nothing was loaded: none of the {len(state_dict)} names of the file is one of "
            f"{type(model).__name__}",
            stacklevel=2,
        )
    return model, keys.missing_keys, keys.unexpected_keys
