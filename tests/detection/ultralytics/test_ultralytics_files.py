"""What is checked of files and folders for Ultralytics before anything of theirs runs."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.detection.data.yolo_layout import read_layout
from lightning_prune.detection.ultralytics.data_yaml import whole_paths
from lightning_prune.detection.ultralytics.module import UltralyticsModule
from lightning_prune.detection.ultralytics.network_file import read_network
from lightning_prune.detection.ultralytics.network_yaml import (
    NOTE,
    check_yaml,
    with_note,
    without_note,
)
from lightning_prune.errors import DataError

LAYERS: dict[str, Any] = {
    "nc": 3,
    "scales": {"n": [0.33, 0.25, 1024]},
    "backbone": [[-1, 1, "Conv", [64, 3, 2]], [-1, 3, "C2f", [128, True]]],
    "head": [[[0, 1], 1, "Detect", ["nc"]], [-1, 1, "nn.Upsample", [None, 2, "nearest"]]],
    "activation": "torch.nn.LeakyReLU(0.1)",
}


def test_their_yaml_passes() -> None:
    check_yaml(LAYERS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "__import__('os').system('true')"}, "activation="),
        ({"activation": "nn.ReLU() or exit()"}, "activation="),
        ({"backbone": [[-1, 1, "eval('1')", []]]}, "no layer's name"),
        ({"backbone": [[-1, 1, "TorchVision", ["resnet18"]]]}, "no layer's name"),
        ({"backbone": [[-1, 1, "Conv", ["exit()"]]]}, "a word or a number"),
        ({"backbone": [[-1, 1, "Conv", [10**9]]]}, "at most"),
        ({"backbone": [[-1, 1, "Conv"]]}, "four entries"),
        ({"backbone": [[-1, 1, "Conv", []]] * 1000}, "no list of layers"),
        ({"head": None}, "no list of layers as `head`"),
        ({"scales": {"n": [float("nan")]}}, "at most"),
    ],
)
def test_a_yaml_that_would_run_something_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_yaml(LAYERS | changes)


def test_the_note_comes_off_again() -> None:
    noted = with_note(LAYERS, "record", {"model.0.act": "relu"})
    assert noted["backbone"][0][2] == NOTE
    assert without_note(noted) == LAYERS
    assert without_note(LAYERS) == LAYERS


def test_files_of_others(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_network(tmp_path / "best.pt")
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds a Linear: only DetectionModel"):
        read_network(tmp_path / "other.pt")
    torch.save({"epoch": 3}, tmp_path / "nothing.pt")
    with pytest.raises(ValueError, match="neither a network of Ultralytics nor a state dict"):
        read_network(tmp_path / "nothing.pt")
    torch.save({"model.0.conv.weight": torch.full((2, 2), torch.nan)}, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match="NaN or infinity"):
        read_network(tmp_path / "nan.pt")


def test_data_yaml_has_whole_paths_and_no_download(tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text("train: images/train\nval: ../images/val\nnames: [a]\ndownload: rm -rf /\n")
    with pytest.raises(DataError, match=r"`train: images/train` does not exist"):
        whole_paths(read_layout(file))
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
    found = whole_paths(read_layout(tmp_path))
    assert found["train"] == [str((tmp_path / "images/train").resolve())]
    assert found["val"] == [str((tmp_path / "images/val").resolve())]  # as some services write it
    assert (found["names"], found["nc"]) == ({0: "a"}, 1)
    assert "download" not in found


@pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is not None, reason="the package is installed"
)
def test_says_how_to_install_the_package() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lightning-prune\[ultralytics\]'"):
        UltralyticsModule(name="yolo11n")
