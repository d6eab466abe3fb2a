"""Files of installed versions of `ultralytics`: what they say, and that we compute the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.detection.module import DetectionModule
from lightning_prune.detection.weights.read_weights import read_weights
from tests.ultralytics.installed import NEWEST, VERSIONS, absent, run_script

pytestmark = [absent, pytest.mark.slow]
NAMES = ["cell", "ring", "star"]
SIX = {"activations": {"backbone.p5.spp.conv1": "identity"}}
"""What 8.4.0 builds."""
NECK = ["neck.bottom_up4", "neck.bottom_up5", "neck.top_down3", "neck.top_down4"]
WHAT: dict[str, dict[str, Any]] = {
    "n": {},
    "s": {},
    "grey": {},
    "four": {},
    "scaled": {"widths": [24, 48, 96, 192, 288], "depths": [2, 4, 4]},
    "narrow": {"widths": [8, 16, 32, 64, 128], "depths": [1, 2, 2]},
    "pool": {"pool_kernel": 7},
    "shortcuts": {"shortcuts": NECK},
    "pools": {**SIX, "pools": 2, "pool_shortcut": True},  # 8.4.190 does so too, where n is given
    "relu": {"activation": "relu"},
    "leaky": {"activation": "leaky_relu(0.1)"},
    "hardswish": {"activation": "hardswish"},
    "saved": {},
    "wrapper": {},
    "bare": {},
    "ema": {},
    "both": {},
    "parallel": {},
    "frozen": {},
}
PLAIN = ("state", "layers", "ddp")
"""Plain state dicts: they say nothing of how the network computes."""


def built_by(version: str) -> dict[str, Any]:
    return SIX if version == "8.4.0" else {}


@pytest.mark.parametrize("name", [*WHAT, *PLAIN])
@pytest.mark.parametrize("version", VERSIONS)
def test_computes_what_their_model_computes(version: str, name: str, files: Path) -> None:
    path = files / f"{name}.pt"
    if name == "pools" and not path.exists():
        pytest.skip(f"the pyramid of {version} has three pools only")
    said = torch.load(files / f"{name}.reference.pt")
    own = {**built_by(version), **WHAT.get(name, {})}
    # Of a plain state dict the user has to say what is not as published.
    module = DetectionModule(weights=str(path), architecture=own if name in PLAIN else None).eval()
    assert (module.hparams["architecture"] or {}) == own
    assert module.hparams["in_channels"] == said["image"].shape[1]
    if name not in PLAIN:
        expected = ["1", "True", "cell"] if name == "frozen" else NAMES
        assert (module.hparams["names"], module.hparams["image_size"]) == (expected, 96)
    with torch.no_grad():
        torch.testing.assert_close(module(said["image"]), said["float"], rtol=0, atol=2e-3)
        double = module.double()(said["image"].double()).double()
    worst = (double - said["double"]).abs().amax() / said["double"].abs().amax()
    assert worst < 1e-6


@pytest.mark.parametrize("version", VERSIONS)
def test_refuses_fused_models(version: str, files: Path) -> None:
    with pytest.raises(ValueError, match=r"fused\.pt: model\.0 has no batch norm: .* best\.pt"):
        read_weights(files / "fused.pt")


OTHERS = {
    "yolov8n-seg": "a segmentation model|holds a SegmentationModel",
    "yolov8n-pose": "holds a PoseModel|a pose or oriented-box model",
    "yolov8n-obb": "holds a OBBModel|a pose or oriented-box model",
    "yolov8n-cls": "holds a ClassificationModel|a classification model",
    "yolov8n-p2": "a YOLOv8-p2 detector",
    "yolov8n-p6": "a YOLOv8-p6 detector",
    "yolov8n-ghost": "a YOLOv8-ghost",
    "yolov8s-worldv2": "holds a WorldModel|a YOLO-World detector",
    "yolov3-tiny": "a YOLOv3-tiny detector",
    "yolov5n": "a YOLOv5",
    "yolov6n": "a YOLOv6 detector",
    "yolov9t": "a YOLOv9 detector",
    "yolov10n": "a YOLOv10",
    "yolo11n": "YOLO11",
    "yolo12n": "YOLO12|depthwise class branches .YOLO11 or later",
    "yolo26n": "YOLO26",
    "yolo26n-seg": "holds a SegmentationModel|a segmentation model",
    "rtdetr-l": "RT-?DETR",
}


def test_names_every_other_model(tmp_path: Path) -> None:
    run_script(NEWEST, "write_others.py", tmp_path, folder=tmp_path)
    for name, message in OTHERS.items():
        for suffix in ("pt", "state.pt"):
            with pytest.raises(ValueError, match=f"({message}).*only YOLOv8 detection models"):
                read_weights(tmp_path / f"{name}.{suffix}")


def test_every_version_was_what_it_is_called(tmp_path: Path) -> None:
    for version in VERSIONS:
        found = json.loads(run_script(version, "say_version.py", folder=tmp_path).splitlines()[-1])
        assert found == version
