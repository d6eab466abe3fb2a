"""`export --format onnx,onnx-int8,...`: bundles, and the commands that read them."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune.cli import benchmark, export, predict
from lightning_prune.detection.data.yolo_folder import YoloFolderDataModule
from lightning_prune.detection.module import DetectionModule
from lightning_prune.export.bundle.read_bundle import read_bundle
from lightning_prune.runs.configuration.folder_seal import seal
from lightning_prune.surgery.compare import eval_outputs
from tests.cli.test_export import cut, save

onnxruntime = pytest.importorskip("onnxruntime")
FORMATS = "onnx,onnx-int8,safetensors"
NAMES = ["RBC", "WBC", "Platelets"]


@pytest.fixture(scope="module")
def blood(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corner of the blood-cell photographs: twelve to calibrate on, six to validate on."""
    source, target = shared / "data/bccd", tmp_path_factory.mktemp("blood")
    for split, count in (("train", 12), ("val", 6)):
        for image in sorted((source / "images" / split).iterdir())[:count]:
            label = Path("labels") / split / f"{image.stem}.txt"
            for part in (Path("images") / split / image.name, label):
                (target / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / part, target / part)
    shutil.copy(source / "data.yaml", target / "data.yaml")
    return target


@pytest.fixture(scope="module")
def run(blood: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run: a cut detector that is sure of much, and its configuration."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    module = DetectionModule(3, image_size=64, names=NAMES)
    cut(module, torch.zeros(1, 3, 64, 64))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("network.head.classes") and name.endswith("2.bias"):
                parameter += 9
    save(module.eval(), folder / "checkpoints/last.ckpt")
    (folder / "config.yaml").write_text(
        "model:\n  _target_: lightning_prune.detection.module.DetectionModule\n"
        "data:\n  _target_: lightning_prune.detection.data.yolo_folder.YoloFolderDataModule\n"
        f"  root: {blood}\n  image_size: 64\n  batch_size: 4\n"
    )
    return folder


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibrated on the training images of the run, judged on its validation images."""
    folder = tmp_path_factory.mktemp("bundle") / "small"
    export.main([str(run), "--format", FORMATS, "--output", str(folder)])
    return folder


def described(bundle: Path) -> dict:
    return json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))


def validation(blood: Path) -> torch.Tensor:
    data = YoloFolderDataModule(str(blood), image_size=64, batch_size=6)
    data.setup("validate")
    return next(iter(data.val_dataloader()))[0]


def test_files_are_as_the_json_says(bundle: Path, run: Path):
    content = described(bundle)
    assert [one["file"] for one in content["files"]] == [
        "last.onnx", "last-int8.onnx", "last.safetensors",
    ]  # fmt: skip
    for one in content["files"]:
        for part in one["files"]:
            raw = (bundle / part["name"]).read_bytes()
            assert (len(raw), hashlib.sha256(raw).hexdigest()) == (part["bytes"], part["sha256"])
        assert one["gate"]["passed"]
        assert (one["gate"]["images"], one["gate"]["data"]) == (6, "validation images")
    files = {one["format"]: one for one in content["files"]}
    assert files["onnx-int8"]["files"][0]["bytes"] < 0.4 * files["onnx"]["files"][0]["bytes"]
    assert content["calibration_images"] == 12
    assert content["dense"]["macs"] > content["network"]["macs"]
    assert content["refused"] == {}
    raw = (run / "checkpoints/last.ckpt").read_bytes()
    assert content["checkpoint_sha256"] == hashlib.sha256(raw).hexdigest()
    names = {path.name for path in bundle.iterdir()}
    assert names == {"README.md", "bundle.json", "last.onnx", "last-int8.onnx", "last.safetensors"}


def test_gates_are_those_of_other_readers(bundle: Path, run: Path, blood: Path):
    """The checkpoint's own forward pass and ONNX Runtime on the same photographs."""
    images = validation(blood)
    module = DetectionModule(weights=str(run / "checkpoints/last.ckpt"), image_size=64).eval()
    (wanted,) = eval_outputs(module, images)
    session = onnxruntime.InferenceSession(bundle / "last.onnx")
    (found,) = session.run(None, {"images": images.numpy()})
    apart = np.abs(found - wanted.numpy())
    gate = described(bundle)["files"][0]["gate"]
    assert gate["values"]["boxes"] == pytest.approx(apart[:, :4].max(), abs=1e-4)
    assert gate["values"]["scores"] == pytest.approx(apart[:, 4:].max(), abs=1e-5)
    assert gate["limits"] == {"boxes": 0.1, "scores": 0.001}
    again = DetectionModule(weights=str(bundle / "last.safetensors"), image_size=64).eval()
    assert torch.equal(eval_outputs(again, images)[0], wanted)
    trainer = L.Trainer(logger=False, enable_progress_bar=False, enable_checkpointing=False,
                        enable_model_summary=False, accelerator="cpu")  # fmt: skip
    data = YoloFolderDataModule(str(blood), image_size=64, batch_size=6)
    (scored,) = trainer.validate(module, data, verbose=False)
    reference = described(bundle)["files"][1]["gate"]["reference"]
    assert reference["map50_95"] == pytest.approx(scored["val/map50_95"], abs=1e-5)


def test_the_card_runs_without_this_package(bundle: Path, blood: Path, tmp_path: Path):
    text = (bundle / "README.md").read_text(encoding="utf-8")
    for one in described(bundle)["files"]:
        assert f"| `{one['file']}` | {one['runtime']} | " in text
        assert one["gate"]["sentence"] in text
    programs = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(programs) == 3
    place = tmp_path / "elsewhere"
    shutil.copytree(bundle, place)
    photo = next((blood / "images/val").iterdir())
    Image.open(photo).save(place / "photo.jpg")
    for program in programs:
        assert len(program.splitlines()) <= 7
        check = "\nimport sys; assert 'lightning_prune' not in sys.modules\n"
        done = subprocess.run(
            [sys.executable, "-I", "-c", program + check], cwd=place, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "(1, 7, 84)" in done.stdout or int(done.stdout) > 10_000


def test_predict_takes_bundles_and_their_files(
    bundle: Path, blood: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    photos = str(blood / "images/val")
    answers = []
    for model, folder in ((bundle, "a"), (bundle / "last-int8.onnx", "b")):
        words = [str(model), "--source", photos, "--output", str(tmp_path / folder)]
        predict.main([*words, "--max-detections", "5"])
        answers.append(json.loads((tmp_path / folder / "predictions.json").read_text()))
    assert f"{bundle} is a bundle: {bundle / 'last.onnx'} is taken (of 3" in capsys.readouterr().err
    for found in answers:
        assert len(found["images"]) == 6
        assert found["names"] == NAMES
        assert found["image_size"] == [64, 64]
        assert sum(len(one["detections"]) for one in found["images"]) == 30


def test_benchmark_says_times_sizes_and_metrics(
    bundle: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    target = tmp_path / "times.json"
    words = [str(bundle), "--dense", str(run), "--batch", "1,2", "--rounds", "3"]
    benchmark.main([*words, "--runtimes", "pytorch,onnx", "--json", str(target)])
    out = capsys.readouterr().out
    assert "1 thread" in out
    assert "last-int8.onnx" in out
    content = json.loads(target.read_text())
    rows = {(r["network"], r["runtime"], r["batch"]): r for r in content["rows"]}
    assert len(rows) == 8
    for (_, _, batch), row in rows.items():
        dense = rows["dense", "ONNX Runtime", batch]["ms"]["processor_low"]
        assert row["than"] == "dense, ONNX Runtime"
        assert row["times_faster"] == pytest.approx(dense / row["ms"]["processor_low"])
        assert 0 < row["ms"]["processor_low"] <= row["ms"]["processor"]
    sizes = {one["file"]: one["files"][0]["bytes"] for one in described(bundle)["files"]}
    small = rows["last-int8.onnx", "ONNX Runtime", 1]
    assert small["bytes"] == sizes["last-int8.onnx"]
    gate = described(bundle)["files"][1]["gate"]
    assert small["metric"] == {"map50_95": gate["values"]["map50_95"]}


def test_what_is_not_installed_is_named(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    with pytest.raises(SystemExit, match="2"):
        benchmark.main([str(bundle), "--rounds", "1"])
    error = capsys.readouterr().err
    assert "last.onnx is left out: onnx needs onnxruntime: pip install 'lightning-prune[onnx]'" in (
        error
    )


def test_a_file_that_misses_its_gate_is_not_written(
    run: Path, blood: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "bundle"
    words = [str(run), "--format", "safetensors,onnx-int8", "--data", str(blood / "data.yaml")]
    with pytest.raises(SystemExit, match="1"):
        export.main([*words, "--output", str(folder), "--accept-loss", "-0.5"])
    out, err = capsys.readouterr()
    assert re.search(r"onnx-int8 is not written: map50_95 .* \(least allowed ", out)
    assert "not in it: onnx-int8" in err
    content = described(folder)
    assert list(content["refused"]) == ["onnx-int8"]
    assert [one["file"] for one in content["files"]] == ["last.safetensors"]
    assert "not written: onnx-int8" in (folder / "README.md").read_text()
    assert not list(folder.glob("*.onnx"))


def test_an_altered_bundle_is_refused(bundle: Path, tmp_path: Path):
    place = tmp_path / "altered"
    shutil.copytree(bundle, place)
    assert [one.kind for one in read_bundle(place)] == FORMATS.split(",")
    raw = bytearray((place / "last.onnx").read_bytes())
    raw[1000] ^= 1
    (place / "last.onnx").write_bytes(raw)
    with pytest.raises(ValueError, match=r"last\.onnx is altered or torn"):
        read_bundle(place)
    (place / "last.onnx").unlink()
    with pytest.raises(ValueError, match="is not in the folder"):
        read_bundle(place)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "onnx,tflite"], "'tflite' is no format: pass ultralytics alone, or some of"),
        (["--format", "onnx,ultralytics"], "'ultralytics' is a file of its own"),
        (["--format", "onnx-int8"], "pass --calibrate with the folder of a run or of images"),
        (["--format", "safetensors,onnx", "--half"], "--half has no place"),
        (["--format", "onnx,safetensors", "--output", "full"], "is not empty; name a new folder"),
        (["--format", "onnx-int8", "--calibrate", "."], "give at least 5"),
        (["--format", "onnx-int8", "--calibrate", "full", "--limit", "0"], "pass at least 1"),
    ],
)
def test_refusals(
    words: list[str],
    message: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(run / "checkpoints/last.ckpt", "lone.ckpt")
    Path("full").mkdir()
    Image.new("RGB", (20, 20)).save("full/one.png")
    with pytest.raises(SystemExit, match="2"):
        export.main(["lone.ckpt", *words])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("**/*.onnx"))


class Digit(L.LightningModule):
    """A classifier of handwritten digits that tracks nothing."""

    def __init__(self, width: int = 12):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2),
            nn.ReLU(), nn.Flatten(), nn.Linear(9 * width, 10),
        )  # fmt: skip
        self.example_input_array = torch.zeros(1, 1, 8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Digits(L.LightningDataModule):
    """Those of scikit-learn."""

    def setup(self, stage: str) -> None:
        images, labels = load_digits(return_X_y=True)
        images = torch.from_numpy(images).float().view(-1, 1, 8, 8) / 16
        self.data = TensorDataset(images, torch.from_numpy(labels).long())

    def train_dataloader(self) -> DataLoader:
        return DataLoader(torch.utils.data.Subset(self.data, range(1200)), batch_size=64)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(torch.utils.data.Subset(self.data, range(1200, 1797)), batch_size=64)


def test_of_a_classifier_the_accuracy_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in (Digit.__module__, __name__):
        monkeypatch.setitem(sys.modules, name, sys.modules[Digit.__module__])
    torch.manual_seed(0)
    module, data = Digit(), Digits()
    data.setup("fit")
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(6):
        for images, labels in data.train_dataloader():
            loss = nn.functional.cross_entropy(module(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    save(module.eval(), tmp_path / "run/checkpoints/last.ckpt")
    config = tmp_path / "run/config.yaml"
    config.write_text(
        f"model:\n  _target_: {__name__}.Digit\ndata:\n  _target_: {__name__}.Digits\n"
    )
    seal(config)
    folder = tmp_path / "bundle"
    export.main([str(tmp_path / "run"), "--format", "onnx,onnx-int8", "--output", str(folder)])
    gate = described(folder)["files"][1]["gate"]
    images, labels = data.data[1200:1797]
    right = (eval_outputs(module, images)[0].argmax(1) == labels).float()
    session = onnxruntime.InferenceSession(folder / "last-int8.onnx")
    (found,) = session.run(None, {"input0": images.numpy()})
    picked = torch.linspace(0, 596, 256).round().long()
    assert gate["reference"]["accuracy"] == pytest.approx(float(right[picked].mean()), abs=1e-5)
    small = (torch.from_numpy(found).argmax(1) == labels).float()
    assert gate["values"]["accuracy"] == pytest.approx(float(small[picked].mean()), abs=1e-5)
    assert float(small.mean()) > 0.85
