import onnx
import torch
from torch import nn

from lightning_prune.detection.module import DetectionModule
from lightning_prune.export.bundle.float_tail import onnx_float_nodes
from lightning_prune.export.onnx_model import onnx_model


def kept(model: nn.Module, side: int = 64) -> tuple[onnx.ModelProto, set[str]]:
    proto = onnx.load_from_string(onnx_model(model.eval(), torch.zeros(1, 3, side, side)))
    for place, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{place}"
    return proto, set(onnx_float_nodes(proto))


def test_of_a_detector_the_decode_and_nothing_before_it():
    """Every node that stays float has only float nodes behind it; all convolutions are 8 bits."""
    proto, names = kept(DetectionModule(2, image_size=64))
    nodes = list(proto.graph.node)
    assert not [node.name for node in nodes if node.op_type == "Conv" and node.name in names]
    last = next(node for node in nodes if "output0" in node.output)
    assert last.op_type == "Concat"
    assert last.name in names
    assert {"Softmax", "Concat", "Sigmoid", "Mul"} <= {n.split("_")[0] for n in names}
    for node in nodes:
        behind = [other for other in nodes if set(node.output) & set(other.input)]
        if node.name in names:
            assert all(other.name in names for other in behind)
        elif node.op_type not in ("Conv",) and behind:
            assert any(other.name not in names for other in behind), node.name


class Expectation(nn.Module):
    """The end of a detector of Ultralytics: a convolution with 0, 1, 2, ... decodes the boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.boxes = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 1)
        self.mean = nn.Conv2d(16, 1, 1, bias=False)
        with torch.no_grad():
            self.mean.weight.copy_(torch.arange(16.0).view(1, 16, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mean(self.boxes(self.first(x).relu()).softmax(1))


def test_a_convolution_that_takes_a_mean_is_part_of_the_decode():
    proto, names = kept(Expectation(), 8)
    conv = [node.name in names for node in proto.graph.node if node.op_type == "Conv"]
    assert conv == [False, False, True]
    assert any(name.startswith("Softmax") for name in names)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.first(x).flatten(2).transpose(1, 2)
        return self.last((tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens).mean(1)


def test_products_of_activations_stay_float_and_layers_do_not():
    proto, names = kept(Attention(), 8)
    weights = {one.name for one in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type in ("MatMul", "Gemm", "Conv"):
            has_weight = any(name in weights for name in node.input)
            assert (node.name in names) is not has_weight
