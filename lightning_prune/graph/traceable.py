"""What no trace sees through, said before one is tried."""

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy


def check_traceable(model: nn.Module) -> None:
    """Refuse models whose layers cannot be seen, or not yet.

    Raises:
        ValueError: the model is wrapped for several devices, a layer is lazy and has no weights
            yet, or a part of it is scripted, or quantized.

    >>> check_traceable(nn.Sequential(nn.LazyLinear(3)))
    Traceback (most recent call last):
        ...
    ValueError: layer '0' (LazyLinear) has no weights yet: run one forward pass before pruning
    """
    if isinstance(model, DataParallel | DistributedDataParallel):
        raise ValueError(
            f"the model is wrapped in {type(model).__name__}: pass model.module, and wrap it again "
            "after the cut"
        )
    for name, module in model.named_modules():
        kind = type(module).__name__
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if any(is_lazy(tensor) for tensor in own):
            raise ValueError(
                f"layer {name!r} ({kind}) has no weights yet: run one forward pass before pruning"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"module {name!r} is scripted (torch.jit): its layers cannot be seen; prune the "
                "module that it was made of, and script it afterwards"
            )
        if type(module).__module__.startswith("torch.ao.nn.quantized"):
            raise ValueError(
                f"layer {name!r} (quantized {kind}) holds no weights that train: prune the "
                "network first, and quantize it afterwards"
            )
