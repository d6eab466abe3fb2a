"""`python -m lightning_prune predict` on checkpoints, runs and ONNX files."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_prune.cli import export, predict
from lightning_prune.detection.module import DetectionModule
from lightning_prune.graph.trace import trace_groups
from lightning_prune.neural.module import NeuralResponseModule
from lightning_prune.surgery.cut import cut_channels
from tests.cli.test_export import save
from tests.networks import random_plan


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cut detector that is sure of what it says."""
    torch.manual_seed(0)
    module = DetectionModule(3, image_size=64, names=["rød", "green", "blue"])
    groups = trace_groups(module, torch.zeros(1, 3, 64, 64))
    cut_channels(module, groups, random_plan(groups, share=0.6))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("network.head.classes") and name.endswith("2.bias"):
                parameter += 8
    return save(module, tmp_path_factory.mktemp("run") / "checkpoints/last.ckpt")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    for name, shape in {"b.jpg": (50, 90), "a.png": (120, 40), "sub/a.jpg": (64, 64)}.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def content(folder: str) -> dict:
    return json.loads(Path(folder, "predictions.json").read_text(encoding="utf-8"))


def test_a_folder_is_drawn_and_written(
    checkpoint: Path, photos: Path, capsys: pytest.CaptureFixture[str]
):
    (photos / "torn.jpg").write_bytes((photos / "b.jpg").read_bytes()[:300])
    (photos / "lfs.png").write_text("version https://git-lfs.github.com/spec/v1\nsize 99\n")
    (photos / "notes.txt").touch()
    words = [str(checkpoint), "--source", "photos", "--save", "--max-detections", "5"]
    predict.main(words)
    out, err = capsys.readouterr()
    assert re.search(r"1/5 photos/a.png 40x120: \d (rød|green|blue)", out)
    assert "3 images, 15 detections; " in out
    assert "2 could not be read: photos/lfs.png, photos/torn.jpg" in out
    assert "1 files there are neither images nor videos" in out
    assert "left out: photos/lfs.png: cannot identify image file: it is a Git LFS pointer" in err
    assert "left out: photos/torn.jpg" in err
    found = content("outputs/predict/1")
    assert [each["file"] for each in found["images"]] == [
        "photos/a.png", "photos/b.jpg", "photos/sub/a.jpg",
    ]  # fmt: skip
    assert [each["file"] for each in found["failed"]] == ["photos/lfs.png", "photos/torn.jpg"]
    module = DetectionModule(weights=str(checkpoint))
    expected = module.predict_images([each["file"] for each in found["images"]], max_detections=5)
    for each, one in zip(found["images"], expected, strict=True):
        assert each == one.to_dict()
        name = Path(each["file"]).relative_to("photos")
        label = Path("outputs/predict/1/labels", name.with_suffix(".txt")).read_text()
        assert label == one.to_yolo()
        drawn = Image.open(Path("outputs/predict/1/images", name))
        assert drawn.size == (each["width"], each["height"])
        assert drawn.tobytes() != Image.open(each["file"]).tobytes()
    predict.main([*words, "--no-images"])
    assert not Path("outputs/predict/2/images").exists()
    assert content("outputs/predict/2") == found


@pytest.mark.slow
def test_onnx_says_what_the_checkpoint_says(checkpoint: Path, photos: Path, tmp_path: Path):
    pytest.importorskip("onnxruntime")
    # A run's folder stands for its checkpoint.
    export.main([str(checkpoint.parent.parent), "--output", "any.onnx"])
    rest = ["--source", "photos", "--classes", "green", "2", "--multi-label", "--no-images"]
    rest += ["--conf", "0.1", "--iou", "1"]  # no two of nearly one overlap decide
    predict.main([str(checkpoint.parent.parent), *rest, "--output", "a"])
    predict.main(["any.onnx", *rest, "--output", "b", "--batch", "2"])
    a, b = content("a"), content("b")
    assert a["names"] == b["names"] == ["rød", "green", "blue"]
    assert a["classes"] == b["classes"] == [1, 2]
    assert sum(len(each["detections"]) for each in a["images"]) > 20
    for mine, theirs in zip(a["images"], b["images"], strict=True):
        assert len(mine["detections"]) == len(theirs["detections"])
        for one in mine["detections"]:
            assert one["label"] in (1, 2)
            assert any(
                one["label"] == other["label"]
                and one["score"] == pytest.approx(other["score"], abs=1e-4)
                and one["box"] == pytest.approx(other["box"], abs=0.05)
                for other in theirs["detections"]
            )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.ckpt", "--source", "photos"], "no checkpoint at missing.ckpt"),
        (["missing.onnx", "--source", "photos"], "no model at missing.onnx"),
        (["CKPT", "--source", "nothing/*.jpg"], r"no image or video in nothing/\*.jpg"),
        (
            ["CKPT", "--source", "photos", "--conf", "25"],
            r"confidence=25.0: pass a number in \[0, 1\)",
        ),
        (["CKPT", "--source", "photos", "--max-detections", "0"], "max_detections=0"),
        (["CKPT", "--source", "photos", "--image-size", "100"], "image_size=100: pass a multiple"),
        (["CKPT", "--source", "photos", "--batch", "0"], "--batch 0: pass at least 1"),
        (["CKPT", "--source", "photos", "--classes", "red"], "classes: 'red' is no class .*green"),
        (["CKPT", "--source", "photos", "--device", "gpu"], "--device gpu: pass cpu, cuda"),
        (["CKPT", "--source", "photos", "--output", "photos"], "photos is there and not empty"),
        (["photos", "--source", "photos"], r"no \*.ckpt in photos"),
        (["photos/a.png", "--source", "photos"], "(?s)a.png cannot be loaded as"),
    ],
)
def test_refusals(
    words: list[str],
    message: str,
    checkpoint: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit, match="2"):
        predict.main([str(checkpoint) if word == "CKPT" else word for word in words])
    assert re.search(message, capsys.readouterr().err)
    assert not Path("outputs").exists()


def test_nothing_readable_ends_with_2(
    checkpoint: Path, photos: Path, capsys: pytest.CaptureFixture[str]
):
    (photos / "b.jpg").write_bytes(b"")
    with pytest.raises(SystemExit, match="2"):
        predict.main([str(checkpoint), "--source", "photos/b.jpg"])
    assert "left out: photos/b.jpg" in capsys.readouterr().err


def test_videos_without_a_backend(
    checkpoint: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    (photos / "clip.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    monkeypatch.setattr("lightning_prune.detection.predict.video.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        predict.main([str(checkpoint), "--source", "photos"])
    assert "pip install 'lightning-prune[video]'" in capsys.readouterr().err


def test_a_network_that_is_no_detector(
    photos: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    config = tmp_path / "run/config.yaml"
    config.parent.mkdir()
    kind = f"{NeuralResponseModule.__module__}.NeuralResponseModule"
    config.write_text(f"model:\n  _target_: {kind}\n")
    module = NeuralResponseModule([3])
    save(module, tmp_path / "run/checkpoints/last.ckpt")
    with pytest.raises(SystemExit, match="2"):
        predict.main(["run", "--source", "photos"])
    assert "holds a NeuralResponseModule: predict draws the boxes" in capsys.readouterr().err
    shutil.rmtree("run")
