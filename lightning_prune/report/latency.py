"""Latency of models, measured in turn so that a noisy machine disturbs all alike."""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_prune.graph.forward_pass import call, untouched


def _wait(example: Any) -> None:
    if any(isinstance(v, Tensor) and v.is_cuda for v in tree_leaves(example)):
        torch.cuda.synchronize()


def measure_latency(
    models: Mapping[str, nn.Module], example_input: Any, rounds: int = 11
) -> dict[str, float]:
    """Return the median time of a forward pass of each model, in milliseconds.

    The models take turns (A B A B ...), in eval mode without gradients, after two passes each
    that are not counted; CUDA is waited for.

    Args:
        models: Name -> model, all on the device of the input.
        example_input: What they are called with.
        rounds: Counted passes of each model.

    Raises:
        ValueError: no round at all.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: pass at least 1")
    times: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        with untouched(model), torch.inference_mode():
            model.eval()
            for _ in range(2):
                call(model, example_input)
    for _ in range(rounds):
        for name, model in models.items():
            with untouched(model), torch.inference_mode():
                model.eval()
                _wait(example_input)
                start = time.perf_counter()
                call(model, example_input)
                _wait(example_input)
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(taken) for name, taken in times.items()}
