"""Weights alone, as the content of a safetensors file."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors.torch import save
from torch import Tensor


def safetensors_bytes(state_dict: Mapping[str, Any], names: Sequence[str] = ()) -> bytes:
    """Return the tensors of a state dict: nothing is in it but numbers.

    The architecture of a cut module is one of them.

    Args:
        state_dict: Tensors by name; other values are left out.
        names: Class names, for the file's metadata.
    """
    state = {
        name: value.detach().cpu().clone().contiguous()  # tied ones must not share
        for name, value in state_dict.items()
        if isinstance(value, Tensor)
    }
    return bytes(save(state, {"names": json.dumps(list(names))} if names else None))
