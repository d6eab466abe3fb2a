import pytest

from lightning_prune.models.yolov8.other_models import (
    refuse_other_names,
)
from tests.models.yolov8.layout import ultralytics_layout


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
