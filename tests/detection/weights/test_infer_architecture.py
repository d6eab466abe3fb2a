import pytest
import torch

from lightning_prune.detection.network.network import YOLOv8
from lightning_prune.detection.weights.infer_architecture import (
    infer_architecture,
    infer_from_shapes,
)


@pytest.mark.parametrize(("size", "classes"), [("n", 1), ("s", 80), ("m", 7), ("l", 7), ("x", 4)])
def test_infers_size_and_classes(size, classes):
    with torch.device("meta"):
        state = YOLOv8(size, classes).state_dict()
    assert infer_architecture(state) == (size, classes)


@pytest.mark.parametrize(
    ("built", "told"),
    [
        ({}, {}),
        ({"class_width": 80}, {"class_width": 80}),
        ({"box_width": 32, "pools": 1}, {"box_width": 32, "pools": 1}),
        ({"activation": "relu", "pool_kernel": 7}, {}),
    ],
)
def test_infers_what_shapes_tell(built, told):
    with torch.device("meta"):
        network = YOLOv8("n", 3, in_channels=4, architecture=built)
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    shapes |= {name: tuple(value.shape) for name, value in network.named_buffers()}
    found = infer_from_shapes(shapes)
    assert (found.size, found.num_classes, found.in_channels) == ("n", 3, 4)
    assert found.architecture.changes() == told
    said = infer_from_shapes(shapes, {"activation": "mish", "class_width": 999})
    assert said.architecture.changes() == {"activation": "mish", **told}
    with pytest.raises(ValueError, match="says 9 pools"):
        infer_from_shapes(shapes, {"pools": 9})


def test_depths_of_no_published_size_are_custom():
    with torch.device("meta"):
        state = YOLOv8("n", 2, depths=(2, 2, 1)).state_dict()
    assert infer_architecture(state) == ("custom", 2)
