"""Compares an ONNX model with the network it was made from."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.export.output_difference import output_difference
from lightning_prune.export.session import open_session, run_session


def onnx_difference(
    content: bytes,
    model: nn.Module,
    example_input: Any,
    batch_sizes: Sequence[int] = (1, 3),
    seed: int = 0,
) -> float:
    """Return how far ONNX Runtime and the network are apart on seeded noise.

    Args:
        content: The ONNX model.
        model: The network, on the CPU, in float32; it is left as it was.
        example_input: A tensor (B, ...), or a tuple or dict of arguments.
        batch_sizes: Numbers of samples to try.
        seed: Of the first batch's noise, in [0, 1); later ones count up.

    Returns:
        As ``output_difference``.

    Raises:
        ValueError: ONNX Runtime cannot run the model, or it has other numbers of inputs or outputs
            than the network.
    """
    session = open_session(content)
    inputs = session.get_inputs()

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        if len(tensors) != len(inputs):
            raise ValueError(f"the ONNX model has {len(inputs)} inputs, the network {len(tensors)}")
        feed = {
            node.name: (tensor.half() if node.type == "tensor(float16)" else tensor).numpy()
            for node, tensor in zip(inputs, tensors, strict=True)
        }
        return [torch.from_numpy(array).float() for array in run_session(session, feed)]

    half = any(node.type == "tensor(float16)" for node in inputs)
    return output_difference(run, model, example_input, batch_sizes, seed, half, "ONNX model")
