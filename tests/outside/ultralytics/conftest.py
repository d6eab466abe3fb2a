"""Networks of the installed package, scrambled, and pictures with drawn shapes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")
ultralytics = pytest.importorskip("ultralytics", reason="make test-ultralytics installs it")


def scrambled(network: nn.Module) -> nn.Module:
    """Give norms values that no fresh network has."""
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.normal_(layer.running_mean, 0, 0.2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.2)
    return network


def draw_folder(root: Path, count: int = 8, side: int = 64) -> Path:
    """Write noise with a triangle and a square each, as polygons; return its data.yaml."""
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(count):
            image = Image.fromarray(generator.integers(0, 90, (side, side, 3), dtype=np.uint8))
            lines = []
            for label in (0, 1):
                x, y = generator.integers(4, side // 2, 2)
                wide = int(generator.integers(12, side // 2 - 4))
                corners = [(x, y), (x + wide, y), (x + wide, y + wide), (x, y + wide)]
                corners = corners[:3] if label == 0 else corners
                ImageDraw.Draw(image).polygon([tuple(map(int, c)) for c in corners], fill="white")
                flat = " ".join(f"{value / side:.6f}" for corner in corners for value in corner)
                lines.append(f"{label} {flat}")
            for kind in ("images", "labels"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
            image.save(root / "images" / split / f"{number}.png")
            (root / "labels" / split / f"{number}.txt").write_text("\n".join(lines))
    text = "train: images/train\nval: images/val\nnames: [triangle, square]\n"
    (root / "data.yaml").write_text(text)
    return root / "data.yaml"


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """The data.yaml of a few pictures with polygons."""
    return draw_folder(tmp_path / "shapes")
