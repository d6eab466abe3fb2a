import pytest

from lightning_prune.detection.weights.other_models import (
    KINDS,
    refuse_other_layers,
    refuse_other_names,
)
from tests.detection.network.layout import ultralytics_layout


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["model.22.proto.cv1.conv.weight", "model.22.cv4.0.0.conv.weight"], "segmentation"),
        (["model.22.cv4.0.0.conv.weight"], "pose or oriented"),
        (["model.9.linear.weight", "model.0.conv.weight"], "classification"),
        (["model.23.cv3.0.2.weight"], "YOLO11"),
        (["model.23.one2one_cv3.0.2.weight"], "YOLOv10"),
        (["model.24.cv3.0.2.weight"], "YOLOv5u"),
        (["model.24.m.0.weight"], "YOLOv5 or older"),
        (["model.30.cv3.0.2.weight"], "p6"),
        (["layer1.weight"], "unknown names"),
        ([], "nothing"),
    ],
)
def test_names_other_models(names, message):
    with pytest.raises(ValueError, match=message):
        refuse_other_names(names)


def test_lets_detectors_pass():
    refuse_other_names(name for name, _ in ultralytics_layout("n", 3))


def test_names_other_layers():
    refuse_other_layers(KINDS)
    changed = list(KINDS)
    changed[2] = "C3k2"
    with pytest.raises(ValueError, match=r"a YOLO11 detector \(layer 2 is a C3k2 where YOLOv8 has"):
        refuse_other_layers(changed)
    with pytest.raises(ValueError, match="a YOLO26 detector"):
        refuse_other_layers(changed, end_to_end=True)
    changed[2] = "Strange"
    with pytest.raises(ValueError, match=r"another network \(layer 2 is a Strange"):
        refuse_other_layers(changed)
    with pytest.raises(ValueError, match="it has 22 layers where YOLOv8 has 23"):
        refuse_other_layers(KINDS[:-1])
    with pytest.raises(ValueError, match="its head is end-to-end"):
        refuse_other_layers(KINDS, end_to_end=True)
