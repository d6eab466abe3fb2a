"""Latency of networks in the runtime that people deploy them in."""

import importlib.util
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_prune.export.bundle.output_judge import input_arrays
from lightning_prune.export.runtimes.onnx_file import OnnxFile
from lightning_prune.export.timing_model import timing_model
from lightning_prune.report.interleaved import interleaved

_NEEDED = ("onnx", "onnxruntime", "onnxscript")


def exported_latency(
    models: Mapping[str, nn.Module], example_input: Any, rounds: int = 11
) -> tuple[dict[str, float], str] | None:
    """Return the median time of a forward pass in ONNX Runtime, and what was used, in words.

    None where it is not installed, the models are not on the CPU, or one cannot be converted.

    Args:
        models: Name -> model, in float32; they are left as they were.
        example_input: What they are called with.
        rounds: Counted passes of each model; they take turns.
    """
    tensors = [leaf for leaf in tree_leaves(example_input) if isinstance(leaf, Tensor)]
    if not tensors or any(importlib.util.find_spec(name) is None for name in _NEEDED):
        return None
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return None
    arrays = input_arrays(example_input)
    try:
        files = {
            name: OnnxFile(timing_model(model, example_input, len(tensors[0])))
            for name, model in models.items()
        }
        taken = interleaved({name: partial(file, arrays) for name, file in files.items()}, rounds)
    except Exception:  # a report is no reason to end a run: PyTorch measures what is refused here
        return None
    words = f"ONNX Runtime {version('onnxruntime')}"
    return {name: timing.wall for name, timing in taken.items()}, words
