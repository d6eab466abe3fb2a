"""A checked ONNX file of a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from lightning_prune.export.formats import FORMATS
from lightning_prune.export.onnx_difference import onnx_difference
from lightning_prune.export.onnx_model import onnx_model
from lightning_prune.export.write_checked import allowed_difference, write_checked


def export_onnx(
    model: nn.Module,
    path: str | Path,
    example_input: Any,
    input_names: tuple[str, ...] | None = None,
    batch: int | None = None,
    half: bool = False,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
    tolerance: float | None = None,
    size_step: int | None = None,
) -> float:
    """Convert a network to ONNX, compare both on noise, and write the file.

    ONNX Runtime must agree with the network on batches of 1 and 3 samples, and where height and
    width are free on a rectangle too; see ``output_difference`` for the measure.

    Args:
        model: The network, dense or cut, on the CPU, in float32; it is left as it was.
        path: Where to write; the file appears whole or not at all.
        example_input: A tensor (B, ...), or a tuple or dict of arguments; shapes matter only.
        input_names: One name per input tensor; None: input0, input1, ...
        batch: Number of samples the file takes at once; None: any number.
        half: Weights and floating-point inputs in 16 bits.
        opset: Version of the ONNX operators, at least 18; None: the exporter's own.
        metadata: Properties to store in the file.
        tolerance: Largest difference allowed; None: 0.001, in half precision 0.1.
        size_step: Height and width of images (B, C, H, W) are free too, multiples of this;
            None: those of the example.

    Returns:
        The difference that was found.

    Raises:
        ModuleNotFoundError: the ``onnx`` extra is not installed.
        ValueError: the network cannot be converted (it is in bfloat16, on a GPU, returns no
            tensors, ...), or an argument is out of range.
        AssertionError: the outputs differ by more than the tolerance. Nothing is written, and an
            earlier file stays.
    """
    allowed = allowed_difference(tolerance, half)
    content = onnx_model(model, example_input, input_names, batch, half, opset, metadata, size_step)
    return write_checked(
        path, content, FORMATS["onnx"],
        lambda example, sizes: onnx_difference(content, model, example, sizes),
        example_input, batch, allowed, size_step,
    )  # fmt: skip
