"""What is written can be read back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_prune.data.checks import Findings
from lightning_prune.detection.data.yolo_labels import read_records
from lightning_prune.detection.predict.detections import Detections

BOXES = torch.tensor([[10.0, 20.0, 110.0, 70.0], [0.0, 0.0, 200.0, 100.0], [1.5, 2.5, 3.5, 4.5]])


@pytest.fixture
def found() -> Detections:
    image = np.full((100, 200, 3), 60, dtype=np.uint8)
    scores, labels = torch.tensor([0.9, 0.5, 0.25]), torch.tensor([2, 0, 2])
    return Detections(BOXES, scores, labels, ("cat", "cow", "dög"), 100, 200, None, image)


def test_summary_and_names(found: Detections):
    assert found.summary() == "1 cat, 2 dög"
    assert found.class_names == ["dög", "cat", "dög"]
    assert len(found) == 3
    assert repr(found) == "Detections(1 cat, 2 dög)"
    nothing = Detections(BOXES[:0], torch.zeros(0), torch.zeros(0).long(), ("a",), 1, 1)
    assert (nothing.summary(), nothing.to_yolo(), nothing.to_dict()["detections"]) == (
        "nothing", "", [],
    )  # fmt: skip


def test_json(found: Detections, tmp_path: Path):
    content = json.loads(found.save(tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (content["width"], content["height"], content["file"]) == (200, 100, None)
    assert [each["box"] for each in content["detections"]] == BOXES.tolist()
    assert [each["name"] for each in content["detections"]] == ["dög", "cat", "dög"]
    assert [each["score"] for each in content["detections"]] == [0.9, 0.5, 0.25]
    assert found.to_dict() == content


def test_yolo_lines_are_labels_of_a_data_set(found: Detections, tmp_path: Path):
    found.save(tmp_path / "images/a.png")
    lines = found.to_yolo().splitlines()
    assert lines[0] == "2 0.300000 0.450000 0.500000 0.500000 0.900000"
    (tmp_path / "labels").mkdir()
    without = "\n".join(line.rpartition(" ")[0] for line in lines)
    (tmp_path / "labels/a.txt").write_text(without)
    records, unusable = read_records([tmp_path / "images/a.png"], 3, Findings())
    assert not unusable
    assert records[0].labels.tolist() == [2, 0, 2]
    centre, half = records[0].boxes[:, :2], records[0].boxes[:, 2:] / 2
    corners = np.concatenate([centre - half, centre + half], axis=1) * [200, 100, 200, 100]
    np.testing.assert_allclose(corners, BOXES, atol=2e-4)


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "a.webp", "a.bmp"])
def test_images(found: Detections, name: str, tmp_path: Path):
    path = found.save(tmp_path / "new" / name)
    drawn = np.asarray(Image.open(path).convert("RGB"))
    assert drawn.shape == (100, 200, 3)
    assert abs(drawn.astype(int) - 60).max() > 50


def test_unknown_suffix(found: Detections, tmp_path: Path):
    with pytest.raises(ValueError, match=r"a.xml: pass a file that ends in .bmp, .jpeg"):
        found.save(tmp_path / "a.xml")
