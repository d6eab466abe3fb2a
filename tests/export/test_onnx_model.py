"""Conversion: names, shapes, precision, properties; values are compared with PyTorch."""

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from lightning_prune.export.onnx_model import onnx_model
from tests.export.networks import Branching, CountsSamples, OneByOne, TwoInTwoOut

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
EXAMPLE = {"image": torch.zeros(1, 3, 6, 5), "extra": torch.zeros(1, 2)}


def session(content: bytes):
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def test_inputs_and_outputs_in_forward_order_for_any_batch():
    model = TwoInTwoOut().train()
    runtime = session(onnx_model(model, EXAMPLE))
    assert model.training
    assert model.dropout.training
    assert [node.name for node in runtime.get_inputs()] == ["input0", "input1"]
    assert [node.name for node in runtime.get_outputs()] == ["maps", "logits"]
    assert [node.shape[1:] for node in runtime.get_outputs()] == [[8, 6, 5], [4]]
    image, extra = torch.randn(5, 3, 6, 5), torch.randn(5, 2)
    maps, logits = runtime.run(None, {"input0": image.numpy(), "input1": extra.numpy()})
    with torch.no_grad():
        expected = model.eval()(image, extra)
    np.testing.assert_allclose(maps, expected["maps"].numpy(), atol=1e-5)
    np.testing.assert_allclose(logits, expected["logits"].numpy(), atol=1e-5)


def test_names_properties_and_opset_are_those_asked_for():
    content = onnx_model(
        TwoInTwoOut(),
        EXAMPLE,
        ("photo", "extra"),
        opset=18,
        metadata={"task": "two", "stride": "1"},
    )
    proto = onnx.load_from_string(content)
    assert [node.name for node in proto.graph.input] == ["photo", "extra"]
    assert {entry.key: entry.value for entry in proto.metadata_props} == {
        "task": "two", "stride": "1"
    }  # fmt: skip
    assert [entry.version for entry in proto.opset_import if entry.domain == ""] == [18]


def test_no_path_of_this_machine_is_in_the_file():
    content = onnx_model(TwoInTwoOut(), EXAMPLE)
    assert b".py" not in content


def test_half_precision_takes_and_holds_16_bits():
    model = TwoInTwoOut()
    content = onnx_model(model, EXAMPLE, half=True)
    assert {node.type for node in session(content).get_inputs()} == {"tensor(float16)"}
    weights = onnx.load_from_string(content).graph.initializer
    types = {w.data_type for w in weights if w.dims and w.data_type != onnx.TensorProto.INT64}
    assert types == {onnx.TensorProto.FLOAT16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_fixed_batch():
    runtime = session(onnx_model(OneByOne(), torch.zeros(7, 4), batch=1))
    (node,) = runtime.get_inputs()
    assert node.shape == [1, 4]


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (OneByOne(), {}, r"inputs \[\(2, 4\)\]: shape .* is invalid .* give a batch size"),
        (Branching(), {"batch": 1}, "torch.onnx cannot convert the network"),
        (nn.Linear(4, 4), {"opset": 17}, "opset=17: pass 18 to"),
        (CountsSamples(), {}, r"its file would take batches of 2 only: use tensor.shape\[0\]"),
        (nn.Linear(4, 4), {"batch": 0}, "batch=0: pass at least 1"),
        (nn.Linear(4, 4), {"input_names": ("a", "b")}, "2 input names for 1 tensors"),
    ],
)
def test_refusals(model: nn.Module, arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        onnx_model(model, torch.zeros(1, 4), **arguments)


def test_missing_extra_names_the_command(monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    with pytest.raises(
        ModuleNotFoundError, match=r"onnxscript: pip install 'lightning-prune\[onnx"
    ):
        onnx_model(nn.Linear(4, 4), torch.zeros(1, 4))
