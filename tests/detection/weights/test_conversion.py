import pytest
import torch

from lightning_prune.detection.network.network import SIZES, YOLOv8
from lightning_prune.detection.weights.conversion import convert_ultralytics
from tests.detection.network.layout import ultralytics_layout


@pytest.mark.parametrize("size", SIZES)
def test_every_tensor_finds_its_place(size):
    layout = ultralytics_layout(size, 7)
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in layout}
        expected = {k: v.shape for k, v in YOLOv8(size, 7).state_dict().items()}
        converted = {k: v.shape for k, v in convert_ultralytics(state).items()}
    assert converted == expected


def test_splits_the_rows_of_the_first_convolution():
    rows = torch.arange(8.0).reshape(8, 1, 1, 1)
    found = convert_ultralytics({"model.2.cv1.conv.weight": rows})
    assert torch.equal(found["backbone.p2.csp.conv1.conv.weight"], rows[:4])
    assert torch.equal(found["backbone.p2.csp.conv2.conv.weight"], rows[4:])


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model.", "_orig_mod."])
def test_accepts_wrapped_names(prefix):
    found = convert_ultralytics({f"{prefix}model.0.conv.weight": torch.zeros(1)})
    assert list(found) == ["backbone.p1.conv.weight"]


def test_refuses_collisions_and_strangers():
    value = torch.zeros(2)
    with pytest.raises(ValueError, match="two tensors"):
        convert_ultralytics({"model.0.bn.bias": value, "module.model.0.bn.bias": value})
    for name in (
        "fc.weight",
        "model.10.conv.weight",
        "model.0.conv.bias.x",
        "model.22.cv9.0.2.bias",
    ):
        with pytest.raises(ValueError, match=name):
            convert_ultralytics({name: value})
    with pytest.raises(ValueError, match="halves"):
        convert_ultralytics({"model.2.cv1.bn.bias": torch.zeros(3)})
