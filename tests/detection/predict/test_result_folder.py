"""Nothing is overwritten, no two images share a file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_prune.detection.predict.detections import Detections
from lightning_prune.detection.predict.result_folder import ResultFolder, numbered_folder


def found(path: str) -> Detections:
    image = np.zeros((20, 30, 3), dtype=np.uint8)
    part = (torch.tensor([[1.0, 2.0, 11.0, 12.0]]), torch.tensor([0.5]), torch.tensor([0]))
    return Detections(*part, ("cell",), 20, 30, Path(path), image)


def test_numbers_go_on(tmp_path: Path):
    for name in ("1", "7", "x"):
        (tmp_path / "predict" / name).mkdir(parents=True)
    assert numbered_folder(tmp_path / "predict").name == "8"
    assert numbered_folder(tmp_path / "predict").name == "9"
    assert numbered_folder(tmp_path / "new").name == "1"


def test_images_of_one_stem_have_files_of_their_own(tmp_path: Path):
    results = ResultFolder(tmp_path / "out", {"model": "m"})
    for name in ("a.jpg", "a.png", "sub/a.jpg", "a.tif", "a.jpg"):
        results.add_image(found(name), Path(name))
    results.add_failure(Path("b.jpg"), "torn")
    results.write()
    files = sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")
    )
    assert files == [
        "images/a.jpg", "images/a.jpg.jpg", "images/a.png", "images/a.tif.png",
        "images/sub/a.jpg", "labels/a.jpg.txt", "labels/a.png.txt", "labels/a.tif.txt",
        "labels/a.txt", "labels/sub/a.txt", "predictions.json",
    ]  # fmt: skip
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [each["file"] for each in content["images"]][:2] == ["a.jpg", "a.png"]
    assert content["failed"] == [{"file": "b.jpg", "reason": "torn"}]
    assert content["model"] == "m"


def test_a_folder_with_files_is_refused(tmp_path: Path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match="is there and not empty: give another folder"):
        ResultFolder(tmp_path, {})
    with pytest.raises(ValueError, match="is there and not empty"):
        ResultFolder(tmp_path / "mine.txt", {})
