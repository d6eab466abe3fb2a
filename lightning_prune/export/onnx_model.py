"""A network as an ONNX model."""

import copy
import importlib.util
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from lightning_prune.export.batches import with_batch
from lightning_prune.graph.trace import call, untouched

_NEEDED = ("onnx", "onnxruntime", "onnxscript")
# The exporter writes no earlier one by itself, and converting to 17 gave an invalid model.
_EARLIEST_OPSET = 18


class _Flat(nn.Module):
    """A network that takes and returns plain tensors, in the order of their leaves."""

    def __init__(self, model: nn.Module, example_input: Any):
        super().__init__()
        self.model = model
        self.leaves, self.spec = tree_flatten(example_input)
        self.places = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor)]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        outputs = tree_leaves(call(self.model, tree_unflatten(leaves, self.spec)))
        return tuple(output for output in outputs if isinstance(output, Tensor))


def check_onnx_installed() -> None:
    """Refuse where the packages of the ``onnx`` extra are missing.

    Raises:
        ModuleNotFoundError: one is missing; the message holds the command that installs it.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"ONNX export needs {', '.join(missing)}: pip install 'lightning-prune[onnx]'"
        )


def onnx_model(
    model: nn.Module,
    example_input: Any,
    input_names: tuple[str, ...] | None = None,
    batch: int | None = None,
    half: bool = False,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Convert a network in eval mode; outputs are named output0, output1, ... in forward order.

    Args:
        model: The network, on the CPU; it is left as it was.
        example_input: A tensor (B, ...), or a tuple or dict of arguments; shapes matter, values
            do not. All sizes but the first of each tensor are fixed.
        input_names: One name per input tensor; None: input0, input1, ...
        batch: Number of samples the file takes at once; None: any number.
        half: Weights, and inputs that are floating point, in 16 bits.
        opset: Version of the ONNX operators, at least 18; None: the exporter's own.
        metadata: Properties to store in the file.

    Raises:
        ModuleNotFoundError: the ``onnx`` extra is not installed.
        ValueError: the network cannot be converted, or an argument is out of range.
    """
    check_onnx_installed()
    import onnx

    latest = onnx.defs.onnx_opset_version()
    if opset is not None and not _EARLIEST_OPSET <= opset <= latest:
        raise ValueError(f"opset={opset}: pass {_EARLIEST_OPSET} to {latest}, or leave it out")
    if batch is not None and batch < 1:
        raise ValueError(f"batch={batch}: pass at least 1 sample, or leave it out for any number")
    flat, tensors = _flat(model, with_batch(example_input, batch or 2), half)
    names = input_names or tuple(f"input{i}" for i in range(len(tensors)))
    if len(names) != len(tensors):
        raise ValueError(f"{len(names)} input names for {len(tensors)} tensors: pass one for each")
    with untouched(flat), torch.no_grad():
        flat.eval()
        outputs = tuple(f"output{i}" for i in range(_count_outputs(flat, tensors)))
        shapes = None if batch else (tuple({0: torch.export.Dim("batch")} for _ in tensors),)
        proto = _convert(flat, tensors, names, outputs, shapes, opset)
    if batch is None:
        _check_any_batch(proto)
    _strip(proto)
    onnx.helper.set_model_props(proto, dict(metadata or {}))
    onnx.checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString()
    return content


def _count_outputs(flat: nn.Module, tensors: tuple[Tensor, ...]) -> int:
    try:
        return len(flat(*tensors))
    except RuntimeError as error:
        raise ValueError(
            f"the network fails on inputs {[tuple(tensor.shape) for tensor in tensors]}: "
            f"{str(error).splitlines()[0]}; check the shape, and give a batch size if the network "
            "takes only one"
        ) from error


def _flat(model: nn.Module, example_input: Any, half: bool) -> tuple[_Flat, tuple[Tensor, ...]]:
    leaves, spec = tree_flatten(example_input)
    if half:
        model = copy.deepcopy(model).half()
        leaves = [
            leaf.half() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
            for leaf in leaves
        ]
    flat = _Flat(model, tree_unflatten(leaves, spec))
    return flat, tuple(leaves[place] for place in flat.places)


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
        with warnings.catch_warnings():
            # They speak of the exporter's inner workings; the result is compared with the model.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                flat, tensors, dynamo=True, verbose=False, dynamic_shapes=shapes,
                input_names=list(names), output_names=list(outputs), opset_version=opset,
            )  # fmt: skip
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = next((line for line in str(cause).splitlines() if line.strip()), "no reason given")
        advice = "" if shapes is None else "; a network of one batch size only needs a fixed batch"
        raise ValueError(
            f"torch.onnx cannot convert the network: {reason.strip()}{advice}"
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
