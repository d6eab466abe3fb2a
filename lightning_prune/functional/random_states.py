"""Random states as plain data: read, kept in a checkpoint, put back."""

import random
from typing import Any

import numpy as np
import torch

RandomStates = dict[str, Any]


def random_states(device: torch.device | None = None) -> RandomStates:
    """Return the states of Python's, NumPy's and torch's generators as tensors and lists.

    Args:
        device: A CUDA device whose generator is read too; None or another device: none.

    >>> before = random_states()
    >>> first = torch.rand(1)
    >>> restore_random_states(before)
    >>> bool(torch.rand(1) == first)
    True
    """
    version, inner, gauss = random.getstate()
    # The typed form: legacy=True would give a tuple without names.
    numpy: Any = np.random.get_state(legacy=False)
    states: RandomStates = {
        "torch": torch.get_rng_state(),
        "python": [version, list(inner), gauss],
        "numpy": {
            "key": torch.from_numpy(numpy["state"]["key"].astype(np.int64)),
            "pos": int(numpy["state"]["pos"]),
            "has_gauss": int(numpy["has_gauss"]),
            "gauss": float(numpy["gauss"]),
        },
    }
    if device is not None and device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(states: RandomStates, device: torch.device | None = None) -> None:
    """Restore what ``random_states`` returned.

    Args:
        states: The states; they stay as they are.
        device: The CUDA device that gets the state of the one that was read, where there is one.
    """
    torch.set_rng_state(states["torch"].cpu())
    version, inner, gauss = states["python"]
    random.setstate((version, tuple(inner), gauss))
    numpy = states["numpy"]
    key = numpy["key"].cpu().numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, numpy["pos"], numpy["has_gauss"], numpy["gauss"]))
    if "cuda" in states and device is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
