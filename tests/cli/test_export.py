"""`python -m lightning_prune export` on detectors and on a user's own module."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from lightning_prune.cli.export import main
from lightning_prune.detection.module import DetectionModule
from lightning_prune.export import export_onnx as room
from lightning_prune.graph.trace import trace_groups
from lightning_prune.runs.configuration.folder_seal import seal
from lightning_prune.surgery.compare import eval_outputs, noise_like
from lightning_prune.surgery.cut import cut_channels
from tests.networks import random_plan

onnxruntime = pytest.importorskip("onnxruntime")


class Own(L.LightningModule):
    """A classifier that tracks nothing and has no example input."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(width, 5),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def save(module: L.LightningModule, path: Path, hparams: Mapping[str, Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    hparams = dict(module.hparams) if hparams is None else hparams
    torch.save(
        {
            "state_dict": module.state_dict(),
            "hyper_parameters": dict(hparams),
            "pytorch-lightning_version": L.__version__,
            "epoch": 1,
            "global_step": 2,
        },
        path,
    )
    return path


def cut(module: nn.Module, example: torch.Tensor) -> None:
    groups = trace_groups(module, example)
    cut_channels(module, groups, random_plan(groups, share=0.6))


@pytest.fixture(scope="module")
def detector() -> DetectionModule:
    torch.manual_seed(0)
    module = DetectionModule(2, image_size=64, names=["red cell", "it's white"])
    cut(module, torch.zeros(1, 3, 64, 64))
    return module.eval()


def test_cut_detector(
    detector: DetectionModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    checkpoint = save(detector, tmp_path / "last.ckpt")
    main([str(checkpoint), "--format", "onnx"])
    path = tmp_path / "last.onnx"
    assert (
        f"{path}: detector in Ultralytics' layout, takes any number of images of any size in steps "
        "of 32 (ultralytics predicts at 640 unless given imgsz=64), "
    ) in capsys.readouterr().out
    session = onnxruntime.InferenceSession(path)
    (images,), (output,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.shape) == ("images", ["batch", 3, "height", "width"])
    assert (output.name, output.shape) == ("output0", ["batch", 6, "output0_size2"])
    for shape in ((2, 3, 64, 64), (1, 3, 32, 32), (5, 3, 96, 32), (1, 3, 64, 160)):
        batch = noise_like(torch.zeros(shape), seed=7)
        (found,) = session.run(None, {"images": batch.numpy()})
        (expected,) = eval_outputs(detector, batch)
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-3, rtol=1e-4)
    properties = session.get_modelmeta().custom_metadata_map
    assert properties["names"] == str({0: "red cell", 1: "it's white"})
    assert (properties["task"], properties["stride"]) == ("detect", "32")
    assert (properties["imgsz"], properties["batch"]) == ("[64, 64]", "1")
    assert (properties["channels"], "'dynamic': True" in properties["args"]) == ("3", True)


def test_other_size_fixed_batch_and_half(detector: DetectionModule, tmp_path: Path):
    checkpoint = save(detector, tmp_path / "last.ckpt")
    path = tmp_path / "small.onnx"
    main(
        [
            str(checkpoint),
            "--output",
            str(path),
            "--image-size",
            "32",
            "64",
            "--batch",
            "2",
            "--half",
        ]
    )
    session = onnxruntime.InferenceSession(path)
    (images,) = session.get_inputs()
    assert (images.shape, images.type) == ([2, 3, 32, 64], "tensor(float16)")
    properties = session.get_modelmeta().custom_metadata_map
    assert (properties["imgsz"], properties["batch"]) == ("[32, 64]", "2")
    assert "'half': True, 'dynamic': False" in properties["args"]


def test_top_k_blocks_are_of_one_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    module = DetectionModule(1, image_size=32, reset_blocks=True, topk=0.5)
    main([str(save(module, tmp_path / "topk.ckpt"))])
    assert "takes 1 images of 32 x 32, " in capsys.readouterr().out
    (images,) = onnxruntime.InferenceSession(tmp_path / "topk.onnx").get_inputs()
    assert images.shape == [1, 3, 32, 32]


def test_class_from_the_run_or_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    own = Own(width=10)
    cut(own, torch.zeros(1, 3, 8, 8))
    name = f"{__name__}.Own"
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Own.__module__])
    checkpoint = save(own, tmp_path / "run/checkpoints/last.ckpt")
    shape = ["--input-shape", "3", "8", "9"]
    main([str(checkpoint), "--class", name, *shape, "--output", str(tmp_path / "by_name.onnx")])
    (tmp_path / "run/config.yaml").write_text(f"model:\n  _target_: {name}\n  width: 10\n")
    seal(tmp_path / "run/config.yaml")  # as a run of this user does
    main([str(checkpoint), *shape])
    assert "last.onnx: Own, " in capsys.readouterr().out
    batch = noise_like(torch.zeros(4, 3, 8, 9), seed=1)
    (expected,) = eval_outputs(own, batch)
    for path in (tmp_path / "by_name.onnx", checkpoint.with_suffix(".onnx")):
        (found,) = onnxruntime.InferenceSession(path).run(["output0"], {"input0": batch.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.ckpt"], "no checkpoint at missing.ckpt"),
        (["torn.ckpt"], "torn.ckpt cannot be loaded as a YOLOv8 detector: .*damaged"),
        (
            ["own.ckpt"],
            r"(?s)as a YOLOv8 detector.*another LightningModule pass its class: --class",
        ),
        (["own.ckpt", "--class", "nowhere.Net"], "class 'nowhere.Net' was not found"),
        (["own.ckpt", "--class", "torch.nn.Linear"], "torch.nn.Linear is no LightningModule"),
        (["own.ckpt", "--class", "OWN"], "Own has no example_input_array: pass the shape"),
        (["own.ckpt", "--class", "OWN", "--input-shape", "3", "--image-size", "8"], "--image-size"),
        (["detector.ckpt", "--image-size", "64", "100"], "--image-size 64 100: both must be mult"),
        (["torn.ckpt", "--class", "OWN"], "(?s)cannot be loaded as .*Own.*the right Lightning"),
    ],
)
def test_refusals(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Own.__module__])
    save(Own(), Path("own.ckpt"))
    save(DetectionModule(1, image_size=64), Path("detector.ckpt"))
    Path("torn.ckpt").write_bytes(Path("own.ckpt").read_bytes()[:500])
    with pytest.raises(SystemExit, match="2"):
        main([word.replace("OWN", f"{__name__}.Own") for word in words])
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert not list(tmp_path.glob("*.onnx"))


def test_unknown_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "last.ckpt"), "--format", "tflite"])
    assert "'tflite' is no format" in capsys.readouterr().err


def test_missing_extra_is_one_sentence(
    detector: DetectionModule,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "last.ckpt")])
    assert capsys.readouterr().err.strip() == (
        "ONNX export needs onnx, onnxruntime, onnxscript: pip install 'lightning-prune[onnx]'"
    )


def test_failed_check_exits_with_1_and_keeps_the_earlier_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(room, "onnx_difference", lambda *_: 0.5)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Own.__module__])
    checkpoint = save(Own(), tmp_path / "own.ckpt")
    path = tmp_path / "own.onnx"
    path.write_bytes(b"earlier")
    with pytest.raises(SystemExit, match="1"):
        main([str(checkpoint), "--class", f"{__name__}.Own", "--input-shape", "3", "8", "8"])
    assert "differ by 0.5 " in capsys.readouterr().err
    assert path.read_bytes() == b"earlier"
