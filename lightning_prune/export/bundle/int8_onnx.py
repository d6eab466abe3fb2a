"""An ONNX model in 8 bits, calibrated on real inputs."""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightning_prune.export.bundle.float_tail import onnx_float_nodes
from lightning_prune.export.quiet_logs import quiet_logs
from lightning_prune.export.session import first_line

Calibration = Literal["minmax", "percentile", "entropy"]
Feed = Mapping[str, np.ndarray]
_LAYERS = ("Conv", "Gemm", "MatMul")
# Between layers: left in 32 bits, they cost more than what the layers gain.
_POINTWISE = ("Add", "Concat", "MaxPool", "Mul", "Resize", "Sigmoid", "Split", "Relu", "LeakyRelu")
_METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
_PERCENTILE = 99.999


def int8_onnx(
    content: bytes,
    feeds: Sequence[Feed],
    calibration: Calibration = "minmax",
    pointwise: bool = True,
    signed: bool = False,
    narrow: bool = True,
) -> bytes:
    """Return a model whose layers multiply 8-bit integers, with the scales stored as Q/DQ nodes.

    Weights have a scale for each channel, activations one for each tensor. What comes behind the
    last layers stays in floating point.

    Args:
        content: The ONNX model in 32 bits.
        feeds: Inputs by name, as the network will see them.
        calibration: How the range of an activation is found from what the inputs make of it.
        pointwise: Whether activations, sums and concatenations are computed in 8 bits too.
        signed: Activations as int8 instead of uint8, which processors without VNNI run at half the
            speed of floats.
        narrow: Weights in 7 bits: on x86 without VNNI the sum of two products of full ones is cut
            off at 16 bits. A YOLOv8n on blood cells lost .054 mAP50-95 by it, and -.001 in 7 bits.

    Raises:
        ValueError: there is nothing to quantize, or ONNX Runtime cannot quantize the model.
    """
    import onnx
    from onnxruntime import quantization

    proto = onnx.load_from_string(content)
    _name_nodes(proto)
    kept = onnx_float_nodes(proto)
    layers = [n for n in proto.graph.node if n.op_type in _LAYERS and n.name not in kept]
    if not layers:
        raise ValueError("the network has no layer that can be computed in 8 bits")
    kind = quantization.QuantType
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save_model(proto, source)
        try:
            quantization.quantize_static(
                source, target, _reader(feeds),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=narrow,
                activation_type=kind.QInt8 if signed else kind.QUInt8,
                weight_type=kind.QInt8,
                op_types_to_quantize=[*_LAYERS, *(_POINTWISE if pointwise else ())],
                nodes_to_exclude=kept,
                calibrate_method=getattr(quantization.CalibrationMethod, _METHODS[calibration]),
                extra_options={"CalibPercentile": _PERCENTILE} if calibration == "percentile"
                else {},
            )  # fmt: skip
        except Exception as error:  # its errors have no common class of their own
            raise ValueError(
                f"ONNX Runtime cannot quantize the network: {first_line(error)}"
            ) from error
        return target.read_bytes()


def _name_nodes(proto: Any) -> None:
    """Name every node, each by a name of its own: nodes are left out by name."""
    seen: set[str] = set()
    for place, node in enumerate(proto.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{place}"
        seen.add(node.name)


def _reader(feeds: Sequence[Feed]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Inputs one by one."""

        def __init__(self) -> None:
            self.rest: Iterator[Feed] = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """Return the next inputs, None behind the last."""
            found = next(self.rest, None)
            return None if found is None else dict(found)

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to themselves what it advises about steps that were taken."""
    with (
        quiet_logs(""),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
