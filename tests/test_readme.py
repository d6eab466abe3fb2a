"""Every block of README and docs/ runs, with the small overrides of tests/overrides.py."""

import importlib
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from PIL import Image

from lightning_prune.__main__ import COMMANDS as NAMES
from lightning_prune.cli.train import main
from lightning_prune.neural.data.simulated_recording import RecordingOptions, simulate_recording
from lightning_prune.neural.module import NeuralResponseModule
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.build_groups import build_groups
from lightning_prune.surgery.cut import cut_channels
from tests.overrides import (
    NO_COST,
    SHORTER,
    TINY,
    TINY_CLASS_RECIPES,
    TINY_CLASSES,
    TINY_FOLDER,
    TINY_MASK_RECIPES,
    TINY_NEURAL,
    TINY_NEURAL_RECIPES,
    TINY_RECIPES,
    TINY_WARNINGS,
)
from tests.vision.class_folders import write_splits
from tests.vision.mask_folders import NAMES as SHAPES
from tests.vision.mask_folders import write_folder

REPOSITORY = Path(__file__).resolve().parent.parent
TOP = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
PAGES = [*TOP, *sorted((REPOSITORY / "docs").rglob("*.md"))]
BLOCKS = [
    (f"{page.name}:{text.count(chr(10), 0, block.start()) + 1}", block[1], block[2])
    for page in PAGES
    for text in [page.read_text(encoding="utf-8")]
    for block in re.finditer(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
]
# Each once, whatever number of pages name it.
COMMANDS = list(
    dict.fromkeys(line for _, kind, text in BLOCKS if kind == "bash" for line in text.splitlines())
)


def command_of(line: str) -> str | None:
    """Return which command but `train` a line runs; None: none."""
    words = shlex.split(line)
    found = words[3] if words[:3] == ["python", "-m", "lightning_prune"] else None
    return found if found in NAMES and found != "train" else None


OTHERS = [line for line in COMMANDS if command_of(line)]
# What a test adds to a command, and what it must print; of one that is not named here, anything.
ADDED = {
    "analyze": ["--no-figures"],
    "benchmark": ["--rounds", "1", "--batch", "1", "--runtimes", "onnx"],
    "compress": ["--steps", "1"],
}
PRINTED = {
    "analyze": ["No epoch has 30% of the channels low"],
    "benchmark": ["1 thread, 5 rounds"],
    "compress": ["last_0.5.ckpt, and its weights alone"],
    "export": ["in Ultralytics' layout"],
    "latency": ["box: run `python measure.py` there"],
    "layers": ["with the following source convs:"],
    "predict": ["2/2 path/to/photos/b.jpg 90x60: ", "written to outputs/predict/1"],
}
RUNS = [line for line in COMMANDS if line.startswith("python ") and line not in OTHERS]
# A table of hundreds of networks is timed; tests/latency and tests/cli/test_latency.py do it small.
LONG = [
    pytest.param(line, marks=pytest.mark.slow) if "latency_target" in line else line
    for line in RUNS
]
PROGRAMS = {place: text for place, kind, text in BLOCKS if kind == "python"}
ENTRIES = (["python", "train.py"], ["python", "-m", "lightning_prune", "train"])


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[list[str]], None]:
    """A function that runs the command line in an empty folder and fails on an exit."""
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.chdir(tmp_path)

    def run(words: list[str]) -> None:
        try:
            main(words)
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None

    return run


_made: dict[str, bytes] = {}  # the checkpoint that many of them start from, trained once


def make_checkpoint(call: Callable[[list[str]], None], folder: Path) -> None:
    if not _made:
        call([*TINY, f"hydra.run.dir={folder / 'earlier'}"])
        _made["last"] = (folder / "earlier/checkpoints/last.ckpt").read_bytes()
    (folder / "path/to").mkdir(parents=True, exist_ok=True)
    (folder / "path/to/last.ckpt").write_bytes(_made["last"])


def make_dataset(folder: Path, shared: Path) -> None:
    """A corner of the blood-cell photographs: eight to train on, four to validate on."""
    source, target = shared / "data/bccd", folder / "path/to/dataset"
    for split, count in (("train", 8), ("val", 4)):
        for image in sorted((source / "images" / split).iterdir())[:count]:
            label = Path("labels") / split / f"{image.stem}.txt"
            for part in (Path("images") / split / image.name, label):
                (target / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / part, target / part)
    shutil.copy(source / "data.yaml", target / "data.yaml")


def make_recordings(folder: Path) -> None:
    """Two sessions of simulated cells as files."""
    (folder / "path/to/recordings").mkdir(parents=True)
    for index, cells in enumerate((4, 3)):
        options = RecordingOptions(cells, 15, 5, 1, 2, 0.6, 2, session=index)
        session = simulate_recording(options).session
        np.savez(
            folder / f"path/to/recordings/{index}.npz",
            stimulus=session.stimulus,
            spikes=session.spikes,
            behavior=session.behavior,
            valid=session.valid,
            trial=session.trial,
            frame_rate=session.frame_rate,
        )


def make_pruned(folder: Path) -> None:
    """A neural-response model of other cells, a quarter of its hidden state cut."""
    model = NeuralResponseModule(cells=[2], behavior_dim=42)
    groups = build_groups(model, model.example_input_array)
    name = "network.modulator.gru.cell.conv_x"
    cut_channels(model, groups, PruningPlan({name: torch.arange(192)}, {name: 256}))
    torch.save({"state_dict": model.state_dict()}, folder / "path/to/pruned.ckpt")


def make_photos(folder: Path) -> None:
    (folder / "path/to/photos").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (90, 60), "white").save(folder / "path/to/photos" / name)


def make_weights(folder: Path) -> None:
    """Random weights of a three-class YOLOv8n as a plain state dict."""
    from lightning_prune.detection.network.network import YOLOv8

    torch.save(YOLOv8("n", num_classes=3).state_dict(), folder / "best.pt")


def test_the_readme_has_blocks():
    assert len(RUNS) >= 5
    assert len(PROGRAMS) >= 2


def test_make_targets_exist():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for line in COMMANDS:
        if line.startswith("make "):
            assert re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE), line


def test_every_command_is_known():
    allowed = ("make ", "python train.py", "python -m lightning_prune train")
    assert all(line.startswith(allowed) or line in OTHERS for line in COMMANDS), COMMANDS


def short_id(line: str) -> str:
    """Name a command by what tells it from others: pytest numbers long ones."""
    return line.removeprefix("python ").replace("path/to/", "")[:90]


@pytest.mark.filterwarnings(*TINY_WARNINGS)
@pytest.mark.parametrize("line", LONG, ids=short_id)
def test_command(
    line: str,
    call: Callable[[list[str]], None],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
):
    words = shlex.split(line)
    (entry,) = [entry for entry in ENTRIES if words[: len(entry)] == entry]
    words = words[len(entry) :]
    neural = re.search(r"neural_response|simulated_cells|neural_sessions", line) is not None
    tiny, recipes = (TINY_NEURAL, TINY_NEURAL_RECIPES) if neural else (TINY, TINY_RECIPES)
    metric = "test/bps" if neural else "test/map50"
    if "model=timm" in line:
        pytest.importorskip("timm", reason="make test-timm installs it")
        write_splits(tmp_path / "path/to/classes")
        tiny, recipes, metric = TINY_CLASSES, TINY_CLASS_RECIPES, "test/accuracy"
    if "path/to/recordings" in line:
        make_recordings(tmp_path)
        tiny = [word for word in TINY_NEURAL if not word.startswith("data.")]
    if "path/to/pruned.ckpt" in line:
        make_pruned(tmp_path)
    if "path/to/dataset" in line:
        make_dataset(tmp_path, request.getfixturevalue("shared"))
        tiny = TINY_FOLDER
    if "model=smp" in line:
        pytest.importorskip("segmentation_models_pytorch", reason="make test-segmentation")
        write_folder(tmp_path / "path/to/shapes", names=None if "data.names" in line else SHAPES)
        tiny, recipes, metric = TINY_FOLDER, TINY_MASK_RECIPES, "test/miou"
    if "path/to/last.ckpt" in line:
        make_checkpoint(call, tmp_path)
        tiny = [*TINY, "dense_epochs=2"]
    if "resume=path/to/run" in line:
        call([*TINY, "hydra.run.dir=path/to/run"])
    # A network of 64 pixels spends its time on what no width changes.
    words = [re.sub(r"latency_target=.*", "latency_target=0.97", word) for word in words]
    recipe = re.search(r"\+pruning=(\w+)", line)
    if recipe:
        tiny = [*tiny, *recipes[recipe[1]]]
    elif "neural_response" in line:
        tiny = [*tiny, *TINY_NEURAL_RECIPES["neural"]]
    if recipe and "report" not in line:
        tiny = [*tiny, *NO_COST]
    if "latency_target" in line:
        tiny = [*tiny, "pruning.masker.round_to=1", "pruning.masker.pruning_ratio=1"]
    if "best.pt" in line:
        make_weights(tmp_path)
    capsys.readouterr()
    call([*words, *tiny])
    assert metric in capsys.readouterr().out


@pytest.mark.parametrize("line", OTHERS, ids=short_id)
def test_other_command(
    line: str,
    call: Callable[[list[str]], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
):
    _, _, _, name, *words = shlex.split(line)
    if name in ("benchmark", "export"):
        pytest.importorskip("onnxruntime")
    if "path/to/last.ckpt" in line:
        make_checkpoint(call, tmp_path)
    if "path/to/run" in line:
        folder = f"hydra.run.dir={tmp_path / 'path/to/run'}"
        call([*TINY, "dense_epochs=2", "callbacks=every_epoch", folder])
    if "path/to/photos" in line:
        make_photos(tmp_path)
    if "path/to/dataset" in line:
        make_dataset(tmp_path, request.getfixturevalue("shared"))
    capsys.readouterr()
    importlib.import_module(NAMES[name][0]).main([*words, *ADDED.get(name, [])])
    out = capsys.readouterr().out
    assert out
    assert all(text in out for text in PRINTED.get(name, []))


@pytest.mark.filterwarnings(*TINY_WARNINGS)
@pytest.mark.parametrize("place", PROGRAMS)
def test_program(place: str, call: Callable[[list[str]], None], tmp_path: Path):
    program = PROGRAMS[place]
    for long, short in SHORTER.items():
        program = program.replace(long, short)
    if "import UnifiedCoreReadout" in program:
        pytest.importorskip("openretina", reason="make test-openretina installs it")
        warnings.simplefilter("ignore")  # its own, of what is deprecated
    if "path/to/last.ckpt" in program:
        make_checkpoint(call, tmp_path)
    torch.manual_seed(0)
    exec(compile(program, place, "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing
