"""What both detectors find on photographs, stored for the page of a run."""

import base64
import copy
import io
import json
import warnings

import pytest
import torch
from PIL import Image

from lightning_prune.cli.report_samples import write_samples
from lightning_prune.detection.data.yolo_folder import YoloFolderDataModule
from lightning_prune.detection.module import DetectionModule
from lightning_prune.detection.paired_precision import detector_difference


@pytest.fixture(scope="module")
def detector(shared):
    weights = shared / "data/yolov8n_coco/yolov8n_coco.safetensors"
    return DetectionModule(weights=str(weights), image_size=320).eval()


@pytest.fixture(scope="module")
def photographs(shared):
    data = YoloFolderDataModule(
        str(shared / "data/coco_open/data.yaml"), image_size=320, batch_size=4, num_workers=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.setup("test")
    return data


def test_boxes_are_those_that_the_detector_finds(detector, photographs, tmp_path):
    write_samples(tmp_path, photographs, detector, detector)
    content = json.loads((tmp_path / "report_data/samples.json").read_text())
    assert content["kind"] == "detection"
    assert content["paired"]["difference"] == 0
    assert content["paired"]["interval_95"] == [0, 0]
    assert len(content["images"]) == 6
    assert sum(len(one["pruned"]) for one in content["images"]) >= 6
    wanted = {}
    for images, _ in photographs.test_dataloader():
        for image in images:
            with torch.inference_mode():
                rows = detector.detect(image[None])[0][:30, :4] / 2  # 320 to 160 pixels
            wanted[tuple(map(tuple, rows.round(decimals=1).tolist()))] = True
    known = {tuple(round(v, 1) for v in box) for rows in wanted for box in rows}
    for one in content["images"]:
        picture = Image.open(io.BytesIO(base64.b64decode(one["data"].partition(",")[2])))
        assert picture.size == (one["width"], one["height"]) == (160, 160)
        assert one["dense"] == one["pruned"]
        for found in one["pruned"]:
            near = [
                max(abs(a - b) for a, b in zip(found["box"], box, strict=True)) for box in known
            ]
            assert min(near) <= 0.11
            assert found["name"] in photographs.names


def test_the_difference_is_that_of_the_metrics(detector, photographs):
    other = copy.deepcopy(detector)
    with torch.no_grad():
        next(other.parameters()).mul_(0.9)
    values = []
    for module in (other, detector):
        for batch in photographs.test_dataloader():
            with torch.inference_mode():
                module.test_map.update_batch(module.scored(batch[0]), batch[1], batch[0].shape)
        values.append(float(module.test_map.compute()["map"]))
        module.test_map.reset()
    found = detector_difference(other, detector, photographs.test_dataloader(), rounds=20)
    assert values[0] != values[1]
    assert found["difference"] == pytest.approx(values[1] - values[0], abs=1e-6)
    low, high = found["interval_95"]
    assert low < found["difference"] < high


def test_what_fails_is_said_and_costs_nothing(detector, tmp_path):
    class Broken:
        names = ("a",)

        def test_dataloader(self):
            raise RuntimeError("the disk is gone")

    with pytest.warns(UserWarning, match="could not be made .RuntimeError: the disk is gone"):
        write_samples(tmp_path, Broken(), None, detector)
    assert not (tmp_path / "report_data").exists()


def test_other_modules_have_no_samples(tmp_path):
    from tests.callbacks.classifiers import Classifier

    write_samples(tmp_path, None, None, Classifier())
    assert list(tmp_path.iterdir()) == []
