"""The page "Your own model" as a new user follows it: its files in a folder, its commands."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
TEXT = (REPOSITORY / "docs/your_own_model.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r'^```(\w+)(?: title="(.+?)")?\n(.*?)^```', TEXT, re.MULTILINE | re.DOTALL)
FILES = {name: text for _, name, text in BLOCKS if name}
COMMANDS = [line for kind, _, text in BLOCKS if kind == "shell" for line in text.splitlines()]
# What the page has a user install and make, which the tests have by other means.
INSTALLS = ("make ", "mkdir ", "cd ", "source ", "pip ")
# What is written there -> what a test runs: the same stages in fewer epochs.
SHORTER = {
    "width: int = 32": "width: int = 16",
    "width: 32": "width: 16",
    "dense_epochs=8": "dense_epochs=1",
    "recovery_epochs=8": "recovery_epochs=3",
    "max_epochs=16": "max_epochs=4",
    "max_epochs: 16": "max_epochs: 4",
    "start_epoch: 8": "start_epoch: 1",
    "end_epoch: 14": "end_epoch: 3",
    "[0.6, 0.2, 0.2]": "[0.2, 0.2, 0.6]",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page, shortened."""
    made = tmp_path_factory.mktemp("mine")
    for name, text in FILES.items():
        for long, short in SHORTER.items():
            text = text.replace(long, short)
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text, encoding="utf-8")
    return made


def run(line: str, folder: Path, **environment: str) -> str:
    for long, short in SHORTER.items():
        line = line.replace(long, short)
    words = shlex.split(line)
    assert words[0] == "python", line
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    known = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=folder,
        env=known | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{line}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "pruning_report.json").read_text())
    return report


def command(start: str) -> str:
    """Return the one command of the page that begins so."""
    (line,) = (line for line in COMMANDS if line.startswith(start))
    return line


def is_half(report: dict[str, Any]) -> bool:
    return 0 < report["pruned"]["macs"] <= 0.5 * report["dense"]["macs"]


def test_every_command_is_one_that_a_test_runs_or_that_installs():
    tested = ("python prune_mine.py", "python cli.py", "python use_mine.py", "python -m lightning_")
    assert len(COMMANDS) > 8
    assert not [line for line in COMMANDS if not line.startswith((*tested, *INSTALLS))]


def test_the_layers_of_a_class_in_the_current_folder(folder: Path):
    out = run(command("python -m lightning_prune layers"), folder)
    assert "features.0" in out
    assert "features.6" in out


def test_the_script(folder: Path):
    out = run(command("python prune_mine.py"), folder)
    assert is_half(report_of(folder / "outputs/script"))
    assert "test/accuracy" in out


def test_lightning_cli(folder: Path):
    pytest.importorskip("jsonargparse", reason="pip install 'lightning-prune[lightning-cli]'")
    run(command("python cli.py"), folder)
    assert is_half(report_of(folder / "outputs/cli"))
    assert (folder / "outputs/cli/checkpoints/best_pruned.ckpt").is_file()


def test_the_command_line_its_resume_and_the_pruned_file(folder: Path):
    run(command("python -m lightning_prune train --config-dir"), folder)
    assert is_half(report_of(folder / "outputs/mine"))
    again = run(command("python -m lightning_prune train resume="), folder)
    assert "this run is finished" in again
    out = run(command("python use_mine.py"), folder)
    assert re.search(r"tensor\(\[\d\]\)", out)
