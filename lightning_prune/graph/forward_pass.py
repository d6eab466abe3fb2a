"""Calls a model and leaves it as it was."""

import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.weight_norm import WeightNorm


def call(model: nn.Module, example_input: Any) -> Any:
    """Call a model on a tensor, a tuple of arguments or a dict of keyword arguments."""
    if isinstance(example_input, dict):
        return model(**example_input)
    if isinstance(example_input, tuple | list):
        return model(*example_input)
    return model(example_input)


@contextmanager
def eager() -> Iterator[None]:
    """Run what ``torch.compile`` compiled as it was written: compiled code calls no hooks."""
    # Nothing was compiled where this was never imported; importing it takes seconds.
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        # A FLOP counter's hooks are global; its double count of the wrapper does not matter.
        warnings.filterwarnings("ignore", message="Using `torch.compile.module.` when there are")
        yield


def _computed(module: nn.Module) -> set[str]:
    """Return the names of the weights that a hook computes again before each pass."""
    hooks = module._forward_pre_hooks.values()
    return {hook.name for hook in hooks if isinstance(hook, WeightNorm)}


def _plain_values(module: nn.Module) -> dict[str, Any]:
    """Return the tensors that are attributes, and all with public names beside such."""
    tensors = {
        name: value.detach() if name in _computed(module) else value
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor)
    }
    return {k: v for k, v in vars(module).items() if tensors and not k.startswith("_")} | tensors


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Restore mode, requires_grad and all random states (torch, NumPy, Python) afterwards.

    Plain tensors too, and the attributes beside them, which belong together where a forward pass
    remembers things (the grid of a detector's head, and the shapes it was made for); the weights
    that the older ``weight_norm`` computes in each pass come back without their graph, with which
    no module could be copied.

    What ``torch.compile`` compiled runs eagerly meanwhile: compiled code does not call hooks.
    """
    python, numpy = random.getstate(), np.random.get_state()
    modes = [(module, module.training) for module in model.modules()]
    wants = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    plain = [(part, _plain_values(part), set(vars(part))) for part in model.modules()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices), eager():
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, wanted in wants:
                parameter.requires_grad_(wanted)
            for module, values, names in plain:
                for name in _plain_values(module).keys() - names if values else ():
                    del vars(module)[name]
                vars(module).update(values)
            random.setstate(python)
            np.random.set_state(numpy)
