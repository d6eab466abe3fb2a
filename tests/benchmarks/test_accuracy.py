import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_prune.detection.network.network import YOLOv8

REPOSITORY = Path(__file__).resolve().parents[2]


def photographs(root: Path) -> Path:
    """Write 20 training and 4 validation pictures with one square of one of 3 classes each."""
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 4)):
        images, labels = root / "images" / split, root / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            pixels[16:48, 16:48, index % 3] = 250
            Image.fromarray(pixels).save(images / f"{index}.png")
            (labels / f"{index}.txt").write_text(f"{index % 3} 0.5 0.5 0.5 0.5\n")
    names = "names: [red, green, blue]\ntrain: images/train\nval: images/val\n"
    (root / "data.yaml").write_text(f"path: {root}\n{names}")
    return root / "data.yaml"


@pytest.mark.slow
def test_methods_are_trained_kept_and_compared(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(YOLOv8("n", 80).state_dict(), tmp_path / "weights.pt")
    command = [
        sys.executable, "benchmarks/accuracy.py", "--data", str(photographs(tmp_path / "data")),
        "--weights", str(tmp_path / "weights.pt"), "--work", str(tmp_path / "work"),
        "--output", str(tmp_path / "accuracy.json"), "--seeds", "0", "--image-size", "64",
        "--dense-epochs", "1", "--recovery-epochs", "5", "--rounds", "3",
        "--methods", "torch-pruning L2 global", "group norm, local, compensated",
        "torch-pruning L2 local, 4 epochs, norms", "measured losses, half",
    ]  # fmt: skip
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "accuracy.json").read_text())
    peer, ours, tuned, measured = result["rows"]
    assert peer["method"] == "torch-pruning L2 global"
    assert 0.4 < peer["macs"] <= 0.5
    assert 0.4 < tuned["macs"] <= 0.5
    assert 0.49 < ours["macs"] <= 0.5
    assert 0.47 < measured["macs"] <= 0.5
    assert ours["against_peer"]["seeds"] == [0]
    for row in result["rows"]:
        for moment in ("cut", "trained", "recalibrated"):
            assert 0 <= row[f"{moment}_map50_95"][0] <= 1
    # Finished runs are not repeated.
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "seed 0" not in again.stdout
    assert json.loads((tmp_path / "accuracy.json").read_text())["rows"] == result["rows"]
