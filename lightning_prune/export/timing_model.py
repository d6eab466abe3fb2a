"""A network as an ONNX model that is made quickly, and timed."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_prune.export.batches import with_batch
from lightning_prune.export.flat import Flat
from lightning_prune.export.formats import FORMATS
from lightning_prune.export.onnx_model import onnx_model
from lightning_prune.graph.forward_pass import untouched

_OPSET = 18


def timing_model(network: nn.Module, example_input: Any, batch: int = 1) -> bytes:
    """Return an ONNX model whose only use is to be timed.

    PyTorch's earlier exporter makes it in a tenth of the time; where that fails the present one
    does. What is deployed comes from the present one, whose file is compared with the network; its
    kernels are the same.

    Args:
        network: On the CPU, in float32; it is left as it was.
        example_input: Its input.
        batch: Samples at once.

    Raises:
        ModuleNotFoundError: the ``onnx`` extra is not installed.
        ValueError: the network cannot be converted.
    """
    FORMATS["onnx"].check_installed()
    flat = Flat(network, with_batch(example_input, batch))
    names = [f"input{place}" for place in range(len(flat.tensors))]
    try:
        with (
            warnings.catch_warnings(), torch.no_grad(), untouched(flat),
            tempfile.TemporaryDirectory() as folder,
        ):  # fmt: skip
            warnings.simplefilter("ignore")
            # Of a branch that values choose, the earlier exporter takes the one it came to.
            warnings.filterwarnings("error", ".*to a Python float")
            file = Path(folder) / "timed.onnx"
            torch.onnx.export(
                flat.eval(), flat.tensors, file, dynamo=False, opset_version=_OPSET,
                input_names=names,
            )  # fmt: skip
            return file.read_bytes()
    except Exception:  # whatever it is, the present exporter says it better
        return onnx_model(network, example_input, batch=batch)
