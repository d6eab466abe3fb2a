"""Kernels of several widths as ONNX models, in the neighbourhood that they have in a network."""

from collections.abc import Sequence
from typing import Any

from lightning_prune.export.formats import FORMATS
from lightning_prune.latency.units import Unit

MARK = "unit_o"
_OPSET = 18
_IR = 9
_SIDE = 8  # channels of what stands before and behind


def kernel_graph(unit: Unit, inputs: int, outputs: Sequence[int]) -> bytes:
    """Return a model with one kernel of each output width, all reading one input of a width.

    A convolution stands between two of 1x1, so that its values have the layout in memory that
    they have inside of a network. The node of a width W and what it makes are called ``unit_oW_``:
    where ONNX Runtime replaces nodes it names them after one or the other. Weights are constants
    that are made where the model is loaded: files stay small, whatever the widths.

    Args:
        unit: The kernel.
        inputs: Width of the input; of a depthwise one it is that of each output.
        outputs: Widths of the outputs.

    Raises:
        ModuleNotFoundError: the ``onnx`` extra is not installed.
    """
    FORMATS["onnx"].check_installed()
    from onnx import TensorProto, helper

    nodes: list[Any] = []
    made: list[Any] = []

    def weight(name: str, *sizes: int) -> str:
        shape = helper.make_tensor(f"{name}_sizes", TensorProto.INT64, [len(sizes)], sizes)
        value = helper.make_tensor(f"{name}_value", TensorProto.FLOAT, [1], [0.01])
        nodes.append(helper.make_node("Constant", [], [f"{name}_shape"], value=shape))
        nodes.append(helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=value))
        return name

    def pointwise(source: str, target: str, wide: int, narrow: int) -> None:
        kernel = weight(f"{target}_w", narrow, wide, *(1 for _ in unit.size))
        nodes.append(helper.make_node("Conv", [source, kernel], [target], name=target))

    def convolution(source: str, target: str, name: str, width: int, per_output: int) -> None:
        kernel = weight(f"{target}_w", width, per_output, *unit.kernel)
        nodes.append(
            helper.make_node(
                "Conv",
                [source, kernel, weight(f"{target}_b", width)],
                [target],
                name=name,
                kernel_shape=unit.kernel,
                strides=unit.stride,
                pads=[*unit.padding, *unit.padding],
                dilations=unit.dilation,
                group=width if unit.kind == "depthwise" else 1,
            )
        )

    if unit.kind == "linear":
        example = [unit.size[0], inputs]
    else:
        example = [unit.batch, _SIDE, *unit.size]
        if unit.kind == "conv":
            pointwise("x", "stem", _SIDE, inputs)
    for width in outputs:
        name, end = f"{MARK}{width}_", f"y{width}"
        if unit.kind == "linear":
            parts = ["x", weight(f"{end}_w", inputs, width), weight(f"{end}_b", width)]
            nodes.append(helper.make_node("Gemm", parts, [end], name=name))
        elif unit.kind == "conv":
            convolution("stem", name, name, width, inputs)
            pointwise(name, end, width, _SIDE)
        else:
            pointwise("x", f"{end}_stem", _SIDE, width)
            convolution(f"{end}_stem", name, name, width, 1)
            pointwise(name, end, width, _SIDE)
        sizes = [None] * len(example)
        made.append(helper.make_tensor_value_info(end, TensorProto.FLOAT, sizes))
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, example)
    graph = helper.make_graph(nodes, "kernels", [given], made)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR
    )
    content: bytes = model.SerializeToString()
    return content
