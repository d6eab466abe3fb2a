"""Bundles with OpenVINO's files, and every file of a bundle in an environment without this package.

`make test-deploy` installs both: .outside/openvino beside the environment, .outside/plain apart.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_prune.cli import benchmark, export, predict
from lightning_prune.detection.module import DetectionModule
from lightning_prune.export.runtimes.open_file import open_file
from lightning_prune.surgery.compare import eval_outputs
from tests.cli.test_export import cut, save

openvino = pytest.importorskip("openvino", reason="make test-deploy installs it")
pytest.importorskip("nncf", reason="make test-deploy installs it")

REPOSITORY = Path(__file__).resolve().parents[3]
PLAIN = REPOSITORY / ".outside/plain/bin/python"
FORMATS = ["onnx", "onnx-int8", "openvino", "openvino-int8", "safetensors"]
pytestmark = pytest.mark.filterwarnings("ignore")  # NNCF's own


@pytest.fixture(scope="module")
def photos(shared: Path) -> list[Path]:
    return sorted((shared / "data/bccd/images/val").iterdir())[:20]


@pytest.fixture(scope="module")
def bundle(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "photos").mkdir()
    for photo in photos:
        shutil.copy(photo, folder / "photos")
    torch.manual_seed(0)
    module = DetectionModule(3, image_size=64, names=["RBC", "WBC", "Platelets"])
    cut(module, torch.zeros(1, 3, 64, 64))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("network.head.classes") and name.endswith("2.bias"):
                parameter += 9
    save(module.eval(), folder / "last.ckpt")
    words = [str(folder / "last.ckpt"), "--calibrate", str(folder / "photos"), "--format"]
    # Untrained, its scores are nearly alike: which of them is best is anybody's guess.
    words += [",".join(FORMATS), "--accept-loss", "1", "--output", str(folder / "bundle")]
    export.main(words)
    return folder / "bundle"


def test_all_formats_are_there_and_judged_in_their_runtimes(bundle: Path):
    content = json.loads((bundle / "bundle.json").read_text())
    assert [one["format"] for one in content["files"]] == FORMATS
    assert content["refused"] == {}
    sizes = {one["format"]: sum(part["bytes"] for part in one["files"]) for one in content["files"]}
    assert sizes["openvino-int8"] < 0.6 * sizes["openvino"]
    for one in content["files"]:
        assert one["gate"]["images"] == 4
        assert ("agreement" in one["gate"]["values"]) == one["int8"]


def test_both_runtimes_give_what_the_checkpoint_does(bundle: Path):
    module = DetectionModule(weights=str(bundle.parent / "last.ckpt"), image_size=64).eval()
    images = torch.rand(3, 3, 96, 64)
    (wanted,) = eval_outputs(module, images)
    for name in ("last.onnx", "last.xml"):
        file = open_file(bundle / name, 1)
        assert [port.name for port in file.inputs] == ["images"]
        assert file.facts["names"] == "{0: 'RBC', 1: 'WBC', 2: 'Platelets'}"
        (found,) = file([images.numpy()])
        np.testing.assert_allclose(found, wanted.numpy(), atol=2e-3, rtol=1e-3)
    for name in ("last-int8.onnx", "last-int8.xml"):
        (found,) = open_file(bundle / name)([images.numpy()])
        centres = np.abs(found[:, :2] - wanted.numpy()[:, :2])
        assert 0 < centres.mean() < 8, "the boxes lie where they lay"


def test_the_decode_stays_float(bundle: Path):
    model = openvino.Core().read_model(bundle / "last-int8.xml")
    ops = model.get_ordered_ops()
    kinds = [op.get_type_name() for op in ops]
    assert kinds.count("FakeQuantize") > 50
    last = max(i for i, kind in enumerate(kinds) if kind == "Softmax")
    assert "FakeQuantize" not in kinds[last:]
    (result,) = [op for op in ops if op.get_type_name() == "Result"]
    concat = result.input_value(0).get_node()
    assert concat.get_type_name() == "Concat"
    given = {concat.input_value(i).get_node().get_type_name() for i in range(2)}
    assert given <= {"Sigmoid", "Transpose", "Multiply", "Reshape"}


def test_every_file_runs_where_this_package_is_not(bundle: Path, photos: list[Path]):
    if not PLAIN.is_file():
        pytest.skip("make test-deploy installs it")
    absent = subprocess.run([PLAIN, "-I", "-c", "import lightning_prune"], capture_output=True)
    assert absent.returncode != 0
    shutil.copy(photos[0], bundle.parent / "photo.jpg")
    place = bundle.parent / "elsewhere"
    shutil.copytree(bundle, place)
    shutil.copy(photos[0], place / "photo.jpg")
    programs = re.findall(r"^```python\n(.*?)^```", (place / "README.md").read_text(), re.M | re.S)
    assert len(programs) == len(FORMATS)
    for program in programs:
        done = subprocess.run(
            [PLAIN, "-I", "-c", program], cwd=place, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "(1, 7, 84)" in done.stdout or int(done.stdout) > 10_000


def test_predict_and_benchmark_take_them(
    bundle: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--source", *map(str, photos[:3]), "--max-detections", "4"]
    predict.main([str(bundle / "last-int8.xml"), *words, "--output", str(tmp_path / "found")])
    assert "3 images, 12 detections; " in capsys.readouterr().out
    target = tmp_path / "times.json"
    benchmark.main([str(bundle), "--batch", "2", "--rounds", "2", "--json", str(target)])
    rows = json.loads(target.read_text())["rows"]
    assert [(row["network"], row["runtime"], row["int8"]) for row in rows] == [
        ("last.onnx", "ONNX Runtime", False), ("last-int8.onnx", "ONNX Runtime", True),
        ("last.xml", "OpenVINO", False), ("last-int8.xml", "OpenVINO", True),
    ]  # fmt: skip
