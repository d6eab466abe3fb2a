"""A network as an ONNX model."""

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_prune.export.batches import with_batch, with_sides
from lightning_prune.export.check_exportable import check_exportable
from lightning_prune.export.flat import Flat, output_names
from lightning_prune.export.formats import FORMATS
from lightning_prune.export.quiet_logs import quiet_logs
from lightning_prune.graph.forward_pass import untouched

# The exporter writes no earlier one by itself, and converting to 17 gave an invalid model.
_EARLIEST_OPSET = 18


def onnx_model(
    model: nn.Module,
    example_input: Any,
    input_names: tuple[str, ...] | None = None,
    batch: int | None = None,
    half: bool = False,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
    size_step: int | None = None,
) -> bytes:
    """Convert a network in eval mode; its outputs keep their order.

    Outputs are named by their keys and fields (``logits``, ``maps.0``) where the network returns
    dicts, dataclasses or named tuples, else output0, output1, ...

    Args:
        model: The network, on the CPU, in float32; it is left as it was.
        example_input: A tensor (B, ...), or a tuple or dict of arguments; shapes matter, values
            do not, but those of integers. All sizes but the first of each tensor are fixed.
        input_names: One name per input tensor; None: input0, input1, ...
        batch: Number of samples the file takes at once; None: any number.
        half: Weights, and inputs that are floating point, in 16 bits.
        opset: Version of the ONNX operators, at least 18; None: the exporter's own.
        metadata: Properties to store in the file.
        size_step: Height and width of images (B, C, H, W) are free too, multiples of this;
            None: fixed.

    Raises:
        ModuleNotFoundError: the ``onnx`` extra is not installed.
        ValueError: the network cannot be converted, or an argument is out of range.
    """
    FORMATS["onnx"].check_installed()
    check_exportable(model, example_input)
    import onnx

    latest = onnx.defs.onnx_opset_version()
    if opset is not None and not _EARLIEST_OPSET <= opset <= latest:
        raise ValueError(f"opset={opset}: pass {_EARLIEST_OPSET} to {latest}, or leave it out")
    if batch is not None and batch < 1:
        raise ValueError(f"batch={batch}: pass at least 1 sample, or leave it out for any number")
    example_input = with_batch(example_input, batch or 2)
    if size_step is not None:
        # A size of one step would be taken for a constant.
        example_input = with_sides(example_input, 2 * size_step, 3 * size_step)
    flat = _flat(model, example_input, half)
    tensors = flat.tensors
    names = input_names or tuple(f"input{i}" for i in range(len(tensors)))
    if len(names) != len(tensors):
        raise ValueError(f"{len(names)} input names for {len(tensors)} tensors: pass one for each")
    with untouched(flat), torch.no_grad():
        flat.eval()
        outputs = output_names(_output(flat), names)
        shapes = _free_sizes(tensors, batch is None, size_step)
        proto = _convert(flat, tensors, names, outputs, shapes, opset)
    if batch is None:
        _check_any_batch(proto)
    _strip(proto)
    _rename_sizes(proto)
    onnx.helper.set_model_props(proto, dict(metadata or {}))
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"the converted network is no valid ONNX: {_reason(error)}") from error
    content: bytes = proto.SerializeToString()
    return content


def _output(flat: Flat) -> Any:
    try:
        return flat.output(*flat.tensors)
    except (RuntimeError, IndexError, TypeError) as error:
        raise ValueError(
            f"the network fails on inputs {[tuple(tensor.shape) for tensor in flat.tensors]}: "
            f"{_reason(error)}; check the shape, and give a batch size if the network takes only "
            "one"
        ) from error


def _free_sizes(tensors: tuple[Tensor, ...], batch: bool, step: int | None) -> tuple[Any] | None:
    """Return which sizes of the inputs are free, as ``torch.export`` wants it."""
    sizes: dict[int, Any] = {0: torch.export.Dim("batch")} if batch else {}
    if step is not None:
        if any(tensor.ndim != 4 for tensor in tensors):
            raise ValueError(f"size_step={step} is for images (B, C, H, W) only: leave it out")
        sizes |= {2: step * torch.export.Dim("rows"), 3: step * torch.export.Dim("columns")}
    # In one tuple: the network takes them as *tensors.
    return (tuple(dict(sizes) for _ in tensors),) if sizes else None


def _rename_sizes(proto: Any) -> None:
    """Name the free sizes, instead of formulas."""
    for value in proto.graph.input:
        sizes = value.type.tensor_type.shape.dim
        for place, name in ((2, "height"), (3, "width")):
            if len(sizes) == 4 and sizes[place].dim_param:
                sizes[place].dim_param = name
    for value in proto.graph.output:
        for place, size in enumerate(value.type.tensor_type.shape.dim):
            if size.dim_param and not size.dim_param.isidentifier():
                size.dim_param = f"{value.name}_size{place}"


def _reason(error: BaseException) -> str:
    """Return the first line of the error that was the cause of all others."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def _flat(model: nn.Module, example_input: Any, half: bool) -> Flat:
    if not half:
        return Flat(model, example_input)

    def halved(leaf: Any) -> Any:
        return leaf.half() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    return Flat(copy.deepcopy(model).half(), tree_map(halved, example_input))


def _check_any_batch(proto: Any) -> None:
    """Refuse a model whose batch the exporter fixed without a word."""
    for value in proto.graph.input:
        size = value.type.tensor_type.shape.dim[0].dim_value
        if size:
            raise ValueError(
                f"the network computes with the number of its samples as a plain number, so that "
                f"its file would take batches of {size} only: use tensor.shape[0] or -1 where it "
                "says len(tensor) or int(tensor.shape[0]), or give a fixed batch"
            )


def _convert(
    flat: nn.Module,
    tensors: tuple[Tensor, ...],
    names: tuple[str, ...],
    outputs: tuple[str, ...],
    shapes: Any,
    opset: int | None,
) -> Any:
    try:
        # They speak of the exporter's inner workings; the result is compared with the model.
        with warnings.catch_warnings(), quiet_logs("onnx_ir", "onnxscript", "torch.onnx"):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                flat, tensors, dynamo=True, verbose=False, dynamic_shapes=shapes,
                input_names=list(names), output_names=list(outputs), opset_version=opset,
            )  # fmt: skip
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        advice = "" if shapes is None else "; it may need a fixed batch and size"
        raise ValueError(
            f"torch.onnx cannot convert the network: {_reason(error)}{advice}"
        ) from error
    assert program is not None
    return program.model_proto


def _strip(proto: Any) -> None:
    """Remove what the exporter notes about every node: paths and lines of this machine."""
    proto.doc_string = ""
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del proto.graph.metadata_props[:]
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]
