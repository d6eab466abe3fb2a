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
    graph = _Graph(unit)
    if unit.kind == "conv":
        graph.pointwise("x", "stem", _SIDE, inputs)
    for width in outputs:
        name, end = f"{MARK}{width}_", f"y{width}"
        if unit.kind == "linear":
            graph.linear("x", end, name, width, inputs)
        elif unit.kind == "conv":
            graph.convolution("stem", name, width, inputs)
        else:
            graph.pointwise("x", f"{end}_stem", _SIDE, width)
            graph.convolution(f"{end}_stem", name, width, 1)
        if unit.kind != "linear":
            graph.pointwise(name, end, width, _SIDE)
    rows = [unit.size[0], inputs]
    example = rows if unit.kind == "linear" else [unit.batch, _SIDE, *unit.size]
    return graph.model(example, [f"y{width}" for width in outputs])


class _Graph:
    """Nodes of a model, one behind the other; weights are named after what they make."""

    def __init__(self, unit: Unit) -> None:
        from onnx import TensorProto, helper

        self._unit, self._onnx, self._float = unit, helper, TensorProto.FLOAT
        self._int = TensorProto.INT64
        self._nodes: list[Any] = []

    def pointwise(self, source: str, target: str, wide: int, narrow: int) -> None:
        kernel = self._weight(f"{target}_w", narrow, wide, *(1 for _ in self._unit.size))
        self._nodes.append(self._onnx.make_node("Conv", [source, kernel], [target], name=target))

    def convolution(self, source: str, target: str, width: int, per_output: int) -> None:
        unit = self._unit
        kernel = self._weight(f"{target}_w", width, per_output, *unit.kernel)
        self._nodes.append(
            self._onnx.make_node(
                "Conv",
                [source, kernel, self._weight(f"{target}_b", width)],
                [target],
                name=target,
                kernel_shape=unit.kernel,
                strides=unit.stride,
                pads=[*unit.padding, *unit.padding],
                dilations=unit.dilation,
                group=width if unit.kind == "depthwise" else 1,
            )
        )

    def linear(self, source: str, target: str, name: str, width: int, inputs: int) -> None:
        weight = self._weight(f"{target}_w", inputs, width)
        parts = [source, weight, self._weight(f"{target}_b", width)]
        self._nodes.append(self._onnx.make_node("Gemm", parts, [target], name=name))

    def model(self, example: list[int], outputs: Sequence[str]) -> bytes:
        given = self._onnx.make_tensor_value_info("x", self._float, example)
        sizes = [None] * len(example)
        made = [self._onnx.make_tensor_value_info(end, self._float, sizes) for end in outputs]
        graph = self._onnx.make_graph(self._nodes, "kernels", [given], made)
        opset = [self._onnx.make_opsetid("", _OPSET)]
        content: bytes = self._onnx.make_model(
            graph, opset_imports=opset, ir_version=_IR
        ).SerializeToString()
        return content

    def _weight(self, name: str, *sizes: int) -> str:
        shape = self._onnx.make_tensor(f"{name}_sizes", self._int, [len(sizes)], sizes)
        value = self._onnx.make_tensor(f"{name}_value", self._float, [1], [0.01])
        made = [f"{name}_shape"]
        self._nodes.append(self._onnx.make_node("Constant", [], made, value=shape))
        self._nodes.append(self._onnx.make_node("ConstantOfShape", made, [name], value=value))
        return name
