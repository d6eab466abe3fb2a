"""`python -m lightning_prune compress` on a small detector."""

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lightning_prune import __main__ as entry
from lightning_prune.cli import compress, predict
from lightning_prune.detection.module import DetectionModule
from lightning_prune.graph.forward_pass import call
from lightning_prune.graph.macs import count_macs
from lightning_prune.graph.trace import trace_groups
from lightning_prune.loading import load_pruned
from lightning_prune.neural.module import NeuralResponseModule
from lightning_prune.surgery.cut import cut_channels
from lightning_prune.surgery.recalibrate import recalibrate_norms
from tests.cli.test_export import Own, save
from tests.detection.data.folders import write_image, write_yolo
from tests.networks import random_plan

SIDE = 64
QUICK = ["--round-to", "4", "--steps", "2", "--no-mirror"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow detector that sees much everywhere, images, and a labelled set."""
    folder = tmp_path_factory.mktemp("work")
    torch.manual_seed(0)
    module = DetectionModule(2, image_size=SIDE, names=["rød", "green"])
    groups = trace_groups(module, torch.zeros(1, 3, SIDE, SIDE))
    cut_channels(module, groups, random_plan(groups, share=0.35))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("network.head.classes") and name.endswith("2.bias"):
                parameter += 9
    module.train()
    recalibrate_norms(module, [torch.rand(16, 3, SIDE, SIDE)], call)
    save(module, folder / "run/checkpoints/last.ckpt")
    for number in range(12):
        write_image(folder / f"photos/{number:02d}.jpg", seed=number)
    (folder / "photos/torn.jpg").write_bytes(b"no image")
    (folder / "photos/notes.txt").touch()
    write_yolo(
        folder / "set", {"train": ["0 .5 .5 .3 .3"], "val": ["0 .5 .5 .3 .3", "1 .2 .2 .3 .3"]}
    )
    return folder


CHECKPOINT = "run/checkpoints/last.ckpt"


class Done:
    """What a command left behind."""

    def __init__(self, folder: Path, out: str, err: str) -> None:
        self.folder, self.out, self.err = folder, out, err
        self.report = json.loads((folder / "compress.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def done(work: Path) -> Done:
    """Two sizes of one detector, scored on the labelled set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setattr(sys, "argv", [
            "lightning_prune", "compress", CHECKPOINT, "--images", "photos", "--macs", "0.5,0.7",
            "--data", "set/data.yaml", "--output", "new/small", *QUICK,
        ])  # fmt: skip
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            entry.main()
    return Done(work / "new/small", out.getvalue(), err.getvalue())


def test_the_files_of_each_size_are_written(done: Done):
    names = {path.name for path in done.folder.iterdir()}
    assert {"compress.json", "last_0.7.ckpt", "last_0.7.safetensors", "last_0.5.ckpt",
            "last_0.5.safetensors"} <= names  # fmt: skip
    assert not [name for name in names if name.endswith((".tmp", ".part"))]


def test_the_report_says_what_was_done(done: Done, work: Path):
    report = done.report
    dense = DetectionModule(weights=str(work / CHECKPOINT)).eval()
    example = torch.zeros(1, 3, SIDE, SIDE)
    assert report["images"] == 10
    assert report["held_back"] == 2
    assert report["image_size"] == SIDE
    assert report["mirror"] is False
    assert report["seed"] == 0
    assert len(report["left_out"]) == 1
    assert "torn.jpg" in report["left_out"][0]
    assert report["dense"]["macs"] == count_macs(dense, example)
    assert report["dense"]["parameters"] == sum(p.numel() for p in dense.parameters())
    assert [row["mac_target"] for row in report["compressed"]] == [0.7, 0.5]
    for row in report["compressed"]:
        assert row["macs_fraction"] <= row["mac_target"]
        assert row["steps"] == 2
        assert 0 <= row["steps_kept"] <= 2
        assert 0 <= row["agreement_before_steps"] <= row["agreement"] <= 1
        assert row["metric"].keys() == report["dense"]["metric"].keys() >= {"map50", "map50_95"}
        assert row["widths"]
        assert all(narrow < wide for wide, narrow in row["widths"].values())
        module = load_pruned(DetectionModule, done.folder / row["checkpoint"])
        assert count_macs(module.eval(), example) == row["macs"]
        assert sum(p.numel() for p in module.parameters()) == row["parameters"]


def test_both_files_load_to_the_same_network(done: Done):
    x = torch.rand(2, 3, SIDE, SIDE)
    for row in done.report["compressed"]:
        checkpoint, weights = done.folder / row["checkpoint"], done.folder / row["weights"]
        loaded = [
            load_pruned(DetectionModule, checkpoint),
            DetectionModule(weights=str(checkpoint)),
            DetectionModule(weights=str(weights)),
        ]
        with torch.no_grad():
            first, *others = (module.eval()(x) for module in loaded)
        assert all(torch.equal(first, other) for other in others)
        assert all(list(module.hparams["names"]) == ["rød", "green"] for module in loaded)
        assert loaded[0].hparams["image_size"] == SIDE
        content = torch.load(checkpoint, weights_only=True)
        assert "optimizer_states" not in content
        assert safetensors.torch.load_file(weights).keys() == content["state_dict"].keys()


def test_what_was_written_predicts(done: Done, work: Path, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]):  # fmt: skip
    monkeypatch.chdir(work)
    for name in ("last_0.5.ckpt", "last_0.5.safetensors"):
        predict.main([str(done.folder / name), "--source", "photos/00.jpg"])
        assert "1 images, " in capsys.readouterr().out


def test_a_network_can_be_compressed_twice(
    done: Done, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(work)
    compress.main([
        str(done.folder / "last_0.7.ckpt"), "--images", "photos/0*.jpg", "--macs", "0.8",
        "--output", str(tmp_path / "again"), *QUICK, "--steps", "0",
    ])  # fmt: skip
    report = json.loads((tmp_path / "again/compress.json").read_text())
    (row,) = report["compressed"]
    assert report["dense"]["macs"] == done.report["compressed"][0]["macs"]
    assert row["macs_fraction"] <= 0.8
    assert row["steps"] == 0
    assert row["agreement"] == row["agreement_before_steps"]
    load_pruned(DetectionModule, tmp_path / "again" / row["checkpoint"])


def test_the_terminal_says_what_came_of_it_and_nothing_else(done: Done):
    for part in ("dense", "map50_95", "agreement", "written to new/small", "last_0.7.safetensors"):
        assert part in done.out
    assert len(re.findall(r"^│ +\d+\.\d%", done.out, re.M)) == 2
    assert "left out: photos/torn.jpg" in done.err
    assert "12 pictures are few" in done.err
    for noise in ("GPU", "TPU", "Tip", "Warning", "litlogger"):
        assert noise not in done.out + done.err


def test_as_few_macs_as_still_agree(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(work)
    compress.main([
        CHECKPOINT, "--images", "photos", "--agreement", "0.2", "--output", str(tmp_path / "out"),
        *QUICK, "--steps", "0", "--limit", "6",
    ])  # fmt: skip
    (row,) = json.loads((tmp_path / "out/compress.json").read_text())["compressed"]
    assert 0 < row["macs_fraction"] < 1
    assert row["macs_fraction"] <= row["mac_target"] + 5e-5


WRONG: dict[str, tuple[list[str], str]] = {
    "macs 0": (["--macs", "0"], "--macs 0: pass the fraction"),
    "macs 1": (["--macs", "0.5,1"], "--macs 0.5,1: pass the fraction"),
    "macs abc": (["--macs", "abc"], "--macs abc: pass the fraction"),
    "macs nan": (["--macs", "nan"], "--macs nan: pass the fraction"),
    "macs empty": (["--macs", ""], "--macs"),
    "steps": (["--steps", "-1"], "--steps -1: pass at least 0"),
    "steps word": (["--steps", "many"], "--steps"),
    "batch": (["--batch", "0"], "--batch 0: pass at least 1"),
    "limit": (["--limit", "0"], "--limit 0: pass at least 1"),
    "round": (["--round-to", "0"], "--round-to 0: pass at least 1"),
    "seed": (["--seed", "-1"], "--seed -1: pass at least 0"),
    "agreement": (["--agreement", "1.5"], "--agreement 1.5: pass a number in (0, 1)"),
    "agreement nan": (["--agreement", "nan"], "--agreement nan: pass a number in (0, 1)"),
    "both": (["--macs", "0.5", "--agreement", "0.9"], "not allowed with argument"),
    "no images": (["--images", "empty"], "no image or video in empty"),
    "no folder": (["--images", "nowhere"], "no file, folder or pattern nowhere"),
    "video": (["--images", "film.mp4"], "--images film.mp4: no picture among them"),
    "torn": (["--images", "photos/torn.jpg"], "none of 1 pictures can be read"),
    "output": (["--output", "photos"], "--output photos: is not empty"),
    "output file": (["--output", "film.mp4"], "--output film.mp4: is not"),
    "size": (["--image-size", "50"], "50"),
    "device": (["--device", "abacus"], "--device abacus: pass cpu"),
    "data": (["--data", "nothing.yaml"], "nothing.yaml"),
    "data classes": (["--data", "many/data.yaml"], "3 classes, the detector 2"),
    "data broken": (["--data", "photos/torn.jpg"], "torn.jpg"),
    "layers": (["--layers", "nothing*"], "no layer 'nothing*'"),
    "unknown": (["--mac", "0.5", "--colour", "red"], "--colour"),
}


@pytest.fixture
def refused(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """A function that runs a wrong command, and returns what it says."""
    monkeypatch.chdir(work)
    Path("empty").mkdir(exist_ok=True)
    Path("film.mp4").touch()

    def call(*words: str) -> str:
        before = sorted(work.rglob("*"))
        with pytest.raises(SystemExit) as end:
            compress.main(list(words))
        out, err = capsys.readouterr()
        assert end.value.code == 2
        assert "Traceback" not in err
        assert "Measuring" not in out
        assert sorted(work.rglob("*")) == before
        return err

    return call


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_are_said_in_a_sentence_before_work_begins(
    name: str, work: Path, refused: Callable[..., str]
):
    write_yolo(
        work / "many", {"train": [""], "val": ["2 .5 .5 .3 .3"]},
        "train: images/train\nval: images/val\nnames: [a, b, c]\n",
    )  # fmt: skip
    words, message = WRONG[name]
    options = {"--images": ["photos"], "--output": ["never"]}
    given = [w for key, value in options.items() if key not in words for w in (key, *value)]
    said = refused(CHECKPOINT, *given, *words)
    assert message in said
    notes = ("usage:", " ", "left out", "12 pictures")
    own = [line for line in said.strip().splitlines() if not line.startswith(notes)]
    assert len(own) == 1, own


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--macs", "0.9,0.001"], "mac_target=0.001 .* cannot be reached: the narrowest widths"),
        (["--limit", "4", "--agreement", "0.9"], "held back: pass at least 5"),
        (["--round-to", "512"], "no channel can go: .* round_to=512"),
    ],
)
def test_what_only_measuring_shows_is_said_before_anything_is_written(
    words: list[str],
    message: str,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(work)
    given = [CHECKPOINT, "--images", "photos", "--output", "never"]
    few = [] if "--round-to" in words else ["--layers", "network.backbone.p3*", *QUICK]
    with pytest.raises(SystemExit) as end:
        compress.main([*given, *words, *few])
    assert end.value.code == 2
    assert not Path("never").exists()
    assert re.search(message, capsys.readouterr().err.splitlines()[-1])


@pytest.mark.parametrize("kind", ["own", "neural", "no weights", "missing", "folder"])
def test_what_is_no_detector_is_refused(kind: str, refused: Callable[..., str], tmp_path: Path):
    words: list[str] = []
    path = tmp_path / "model.ckpt"
    if kind == "own":
        save(Own(), path)
        words = ["--class", "tests.cli.test_export.Own"]
    elif kind == "neural":
        module = NeuralResponseModule(
            cells=[2], frames=16, frame_shape=[15, 15], convnet={"channels": [4, 6, 8]},
            modulator={"behavior_dim": 5, "feature_dim": 8, "hidden_dim": 8, "beh_emb_dim": 4},
        )  # fmt: skip
        save(module, path)
        words = ["--class", "lightning_prune.neural.module.NeuralResponseModule"]
    elif kind == "no weights":
        path.write_bytes(b"hello")
    elif kind == "folder":
        path.mkdir()
    said = refused(str(path), "--images", "photos", "--output", "never", *words)
    assert "model.ckpt" in said
    if words:
        assert "the command compresses detectors" in said
    assert len(said.strip().splitlines()) <= 2


def test_help_needs_no_pytorch_and_names_all_options(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        compress.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for option in ("--images", "--macs", "--agreement", "--steps", "--data", "--output"):
        assert option in text


def test_files_for_other_runtimes_end_it(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """From a checkpoint and pictures to a pruned file in 8 bits, judged by the dense network."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(work)
    words = [CHECKPOINT, "--images", "photos", "--output", "new/int8", "--macs", "0.7"]
    compress.main([*words, *QUICK, "--steps", "0", "--format", "onnx-int8", "--accept-loss", "1"])
    assert "last_0.7_bundle/: files for other runtimes" in capsys.readouterr().out
    report = json.loads(Path("new/int8/compress.json").read_text(encoding="utf-8"))
    (row,) = report["compressed"]
    assert (row["bundle"], row["refused"]) == ("last_0.7_bundle", {})
    content = json.loads(Path("new/int8/last_0.7_bundle/bundle.json").read_text(encoding="utf-8"))
    (entry,) = content["files"]
    assert (entry["file"], entry["gate"]["images"]) == ("last_0.7-int8.onnx", 2)
    assert content["calibration_images"] == report["images"]
    assert content["network"]["macs"] == row["macs"]
    reference = entry["gate"]["reference"]["agreement"]
    assert reference == pytest.approx(row["agreement"], abs=0.02)
    assert 0 <= entry["gate"]["values"]["agreement"] <= 1
    predict.main(["new/int8/last_0.7_bundle", "--source", "photos/00.jpg"])
    assert "1 images, " in capsys.readouterr().out
