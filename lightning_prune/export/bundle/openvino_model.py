"""Networks as OpenVINO models, in 32 and in 8 bits."""

import contextlib
import io
import sys
import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lightning_prune.export.bundle.float_tail import behind_layers, is_expectation
from lightning_prune.export.quiet_logs import quiet_logs
from lightning_prune.export.session import first_line

_LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
_CONSTANTS = ("Constant", "Convert", "Reshape", "Transpose", "Unsqueeze", "Multiply")


def openvino_model(content: bytes) -> Any:
    """Convert an ONNX model.

    Raises:
        ValueError: OpenVINO cannot convert it.
    """
    import openvino

    try:
        model = openvino.convert_model(io.BytesIO(content))
    except Exception as error:
        raise ValueError(f"OpenVINO cannot convert the network: {first_line(error)}") from error
    import onnx

    for prop in onnx.load_from_string(content).metadata_props:
        model.set_rt_info(prop.value, ["model_info", prop.key])
    return model


def int8_openvino(model: Any, feeds: Sequence[Mapping[str, np.ndarray]], mixed: bool = True) -> Any:
    """Return a model whose layers multiply 8-bit integers.

    Args:
        model: In 32 bits.
        feeds: Inputs by name, as the network will see them.
        mixed: Activations may have a zero of their own, which suits SiLU; else symmetric.

    Raises:
        ValueError: NNCF cannot quantize the network.
    """
    import nncf

    presets = nncf.QuantizationPreset
    with _quiet():
        try:
            return nncf.quantize(
                model, nncf.Dataset([dict(feed) for feed in feeds]),
                preset=presets.MIXED if mixed else presets.PERFORMANCE,
                subset_size=len(feeds),
                ignored_scope=nncf.IgnoredScope(names=openvino_float_nodes(model), validate=False),
            )  # fmt: skip
        except Exception as error:
            raise ValueError(f"NNCF cannot quantize the network: {first_line(error)}") from error


def openvino_float_nodes(model: Any) -> list[str]:
    """Return the names of the operations behind the last layers; see ``behind_layers``."""
    order = [op for op in model.get_ordered_ops() if not _is_constant(op)]
    names: list[Hashable] = [op.get_friendly_name() for op in order]
    consumers: dict[Hashable, list[Hashable]] = {
        op.get_friendly_name(): [
            target.get_node().get_friendly_name()
            for output in op.outputs()
            for target in output.get_target_inputs()
        ]
        for op in order
    }
    layers = frozenset(op.get_friendly_name() for op in order if _is_layer(op))
    kept = set(behind_layers(names, consumers, layers))
    return [
        op.get_friendly_name()
        for op in order
        if op.get_friendly_name() in kept and op.get_type_name() not in ("Result", "Parameter")
    ]


def openvino_files(model: Any, name: str) -> dict[str, bytes]:
    """Return the two files of a model, the ``.xml`` first; the other has the same stem."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, name)
        openvino.save_model(model, target, compress_to_fp16=False)
        weights = target.with_suffix(".bin")
        return {name: target.read_bytes(), weights.name: weights.read_bytes()}


def _is_layer(op: Any) -> bool:
    if op.get_type_name() not in _LAYERS:
        return False
    weight = op.input_value(1).get_node()
    if not _is_constant(weight):
        return False
    learned = weight.get_type_name() != "Constant" or not is_expectation(weight.get_data())
    return bool(learned)


def _is_constant(op: Any) -> bool:
    """Return whether an operation makes the same for every input."""
    if op.get_type_name() == "Constant":
        return True
    if op.get_type_name() not in _CONSTANTS or not op.get_input_size():
        return False
    return all(_is_constant(op.input_value(i).get_node()) for i in range(op.get_input_size()))


@contextmanager
def _quiet() -> Iterator[None]:
    # Its bars are for terminals.
    bars = contextlib.nullcontext() if sys.stdout.isatty() else _no_output()
    with quiet_logs("nncf", "openvino"), bars:
        yield


def _no_output() -> contextlib.redirect_stdout[io.StringIO]:
    return contextlib.redirect_stdout(io.StringIO())
