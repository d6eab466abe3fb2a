"""ONNX files of ours and of others, whose layout is the same or not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_prune.detection.predict.file_detector import FileDetector
from lightning_prune.detection.predict.options import PredictionOptions
from lightning_prune.detection.predict.predict_images import predict_images
from lightning_prune.export.onnx_model import onnx_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


class Raw(nn.Module):
    """One box in the middle of the image, of two classes."""

    def __init__(self, rows: int = 6):
        super().__init__()
        self.rows = rows

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        box = torch.tensor([width / 2, height / 2, width / 2, height / 2, 0.1, 0.8, 0, 0, 0])
        return (
            box[: self.rows, None].expand(images.shape[0], -1, 3)
            + 0 * images.mean((1, 2, 3))[:, None, None]
        )


def write(path: Path, facts: dict[str, str], shape=(1, 3, 32, 64), batch=1, rows=6) -> Path:
    path.write_bytes(onnx_model(Raw(rows), torch.zeros(shape), ("images",), batch, metadata=facts))
    return path


FACTS = {"names": "{0: 'cat', 1: 'dog'}", "imgsz": "[32, 64]", "task": "detect", "stride": "32"}


def test_facts_of_the_file(tmp_path: Path):
    detector = FileDetector(write(tmp_path / "a.onnx", FACTS))
    assert (detector.names, detector.channels) == (("cat", "dog"), 3)
    assert (detector.size, detector.batch, detector.free) == ((32, 64), 1, False)
    image = np.zeros((100, 50, 3), dtype=np.uint8)
    found = predict_images(detector, [image] * 3, PredictionOptions())
    assert [one.class_names for one in found] == [["dog"]] * 3
    # The image is 16 pixels wide in the input of 64 x 32; the box covers it and half its height.
    assert found[0].boxes.tolist() == [[0, 25, 50, 75]]
    with pytest.raises(ValueError, match="image_size=64: the model takes images of 32 x 64 only"):
        predict_images(detector, image, PredictionOptions(), image_size=64)


def test_without_metadata(tmp_path: Path):
    detector = FileDetector(write(tmp_path / "a.onnx", {}, batch=None))
    assert (detector.names, detector.batch) == (("class0", "class1"), None)
    hostile = {"names": "__import__('os').system('touch x')", "imgsz": "[" * 500}
    assert FileDetector(write(tmp_path / "b.onnx", hostile)).names == ("class0", "class1")


@pytest.mark.parametrize(
    ("facts", "options", "message"),
    [
        (FACTS | {"task": "segment"}, {}, "a model for the task 'segment': only detectors"),
        (FACTS, {"rows": 7}, "output has 3 classes, its metadata name 2"),
        (FACTS, {"rows": 4}, r"output0 \[1, 4, 3\]: one of \(batch, 4 \+ classes"),
        (FACTS | {"args": "{'nms': True}"}, {}, "export it with nms=False"),
        (FACTS | {"end2end": "True"}, {}, "export it with nms=False"),
        (FACTS, {"shape": (1, 5, 32, 32)}, "it takes images of 5 channels"),
    ],
)
def test_other_models(facts: dict[str, str], options: dict, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=rf"a.onnx: .*{message}"):
        FileDetector(write(tmp_path / "a.onnx", facts, **options))


def test_files_that_are_none(tmp_path: Path):
    path = tmp_path / "a.onnx"
    with pytest.raises(FileNotFoundError, match="no model at"):
        FileDetector(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\nsize 99\n")
    with pytest.raises(ValueError, match=r"a.onnx: a Git LFS pointer .* not an ONNX model"):
        FileDetector(path)
    path.write_bytes(write(tmp_path / "b.onnx", FACTS).read_bytes()[:-700])
    with pytest.raises(ValueError, match=r"a.onnx: ONNX Runtime cannot load the model"):
        FileDetector(path)
    with pytest.raises(ValueError, match="device=tpu: ONNX Runtime is used on cpu or cuda"):
        FileDetector(tmp_path / "b.onnx", "tpu")
