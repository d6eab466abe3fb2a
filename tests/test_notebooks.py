"""Every notebook runs from top to bottom, with smaller numbers, and is kept with its outputs."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "examples/notebooks"
FOLDERS = {"detection": "notebook_detection", "neural": "notebook_neural"}
# What is written there -> what the test runs.
SHORTER = {
    "detection": {
        "image_size=96, train_images=400, val_images=60, test_images=80": (
            "image_size=32, train_images=16, val_images=8, test_images=8"
        ),
        "image_size=96": "image_size=32",
        "1, 3, 96, 96": "1, 3, 32, 32",
        "schedule_epochs=8": "schedule_epochs=1",
        "dense_epochs=8": "dense_epochs=1",
        "recovery_epochs=8": "recovery_epochs=2",
    },
    "neural": {
        "trials=14, repeated_trials=2, repeats=6, trial_seconds=1.5": (
            "trials=5, repeated_trials=1, repeats=2, trial_seconds=0.6"
        ),
        "schedule_epochs=3": "schedule_epochs=1",
        "dense_epochs=3": "dense_epochs=1",
        "recovery_epochs=4": "recovery_epochs=2",
    },
}


def test_each_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == SHORTER.keys()


@pytest.mark.parametrize("name", SHORTER)
def test_it_is_kept_as_it_ran(name):
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 400_000
    assert "notebooks/" + name in (FOLDER.parent.parent / "docs/start.md").read_text("utf-8")


@pytest.mark.parametrize("name", SHORTER)
def test_it_runs(name, tmp_path):
    text = (FOLDER / f"{name}.ipynb").read_text("utf-8")
    for written, run in SHORTER[name].items():
        assert written in text
        text = text.replace(written, run)
    book = nbformat.reads(text, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(book, timeout=240, resources=place, record_timing=False).execute()
    (report,) = tmp_path.glob("outputs/*/pruning_report.json")
    assert report.parent.name == FOLDERS[name]
    content = json.loads(report.read_text())
    target = {"detection": 0.5, "neural": 0.33}[name]
    assert content["pruned"]["macs"] <= target * content["dense"]["macs"]
