"""`python -m lightning_prune layers` on configurations, checkpoints and networks of one's own."""

import re
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from lightning_prune.cli.layers import main
from lightning_prune.detection.module import DetectionModule
from lightning_prune.graph.trace import trace_groups
from tests.cli.conftest import CONF
from tests.cli.test_export import Own, cut, save


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[_here.__module__])
    yield
    GlobalHydra.instance().clear()


SMALL = ["data.image_size=64"]


def listed(text: str) -> list[str]:
    return re.findall(r"^Source conv: (.*)$", text, re.MULTILINE)


def test_the_model_that_train_would_build(capsys: pytest.CaptureFixture[str]):
    main(["model.size=s", *SMALL])
    text = capsys.readouterr().out
    module = DetectionModule(10, "s", image_size=64)
    groups = trace_groups(module, module.example_input_array)
    assert listed(text) == list(groups)
    assert f"There are {len(groups)} groups of layers, with the following source convs:" in text
    assert re.search(r"^\* network\.backbone\.p1\.conv +32 ", text, re.MULTILINE)


@pytest.mark.parametrize(
    "words",
    [
        ["+pruning=channel", "pruning.masker.layers=[*.p5.down.conv, *.p1.conv]"],
        ["--layers", "*.p5.down.conv", "*.p1.conv"],
    ],
)
def test_layers_that_are_selected(words: list[str], capsys: pytest.CaptureFixture[str]):
    main([*SMALL, *words])
    names = ["network.backbone.p1.conv", "network.backbone.p5.down.conv"]
    assert listed(capsys.readouterr().out) == names


def test_a_rule(capsys: pytest.CaptureFixture[str]):
    rule = "{_target_: lightning_prune.policies.layers.widest_layers.WidestLayers, count: 2}"
    main([*SMALL, "+pruning=channel", f"pruning.masker.layers={rule}"])
    assert len(listed(capsys.readouterr().out)) == 2


def test_a_network_of_ones_own(capsys: pytest.CaptureFixture[str]):
    main(
        [
            "--class",
            "torchvision.models.resnet18",
            "num_classes=5",
            "--input-shape",
            "3",
            "32",
            "32",
        ]
    )
    text = capsys.readouterr().out
    assert listed(text)[:2] == ["conv1", "layer1.0.conv1"]
    assert "fc: its channels reach the output" in text


def test_a_checkpoint(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    torch.manual_seed(0)
    own = Own(width=10)
    cut(own, torch.zeros(1, 3, 8, 8))
    width = own.net[0].out_channels
    path = save(own, tmp_path / "last.ckpt")
    name = f"{Own.__module__}.Own"
    main(["--checkpoint", str(path), "--class", name, "--input-shape", "3", "8", "8"])
    assert width < 10
    assert re.search(rf"^\* net\.0 +{width} ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+prunning=channel"], "Did you mean pruning"),
        (["model.sice=s"], "Did you mean model.size"),
        (["model=yolov9"], "yolov9"),
        (["model.lr=fast"], "model.lr='fast': pass a number"),
        (
            [*SMALL, "--layers", "network.backbone.p1.konv"],
            "did you mean 'network.backbone.p1.conv'",
        ),
        (["data=yolo_folder", "data.root=/nowhere"], "/nowhere"),
        (["--config-dir", str(CONF), "model=line", "data=points"], "no example_input_array"),
        (["--class", "nowhere.Net"], "^class 'nowhere.Net' was not found"),
        (["--class", "torch.nn.Linear", "3"], "write KEY=VALUE"),
        (["--class", "torch.nn.Linear", "in_features=3"], "out_features"),
        (["--class", "torch.zeros", "size=[2]"], "no torch.nn.Module"),
        (["--class", "torchvision.models.resnet18"], "has no example_input_array"),
        (["--class", "torchvision.models.resnet18", "--input-shape", "1", "9", "9"], "mode fails"),
        (["--checkpoint", "missing.ckpt"], "no checkpoint at missing.ckpt"),
        (["--checkpoint", "missing.ckpt", "model.size=s"], "has no place beside --checkpoint"),
    ],
)
def test_refusals(words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert re.search(message, capsys.readouterr().err)


def test_what_of_attention_goes_is_an_option(capsys: pytest.CaptureFixture[str]):
    words = ["--class", "tests.sized_networks.Vit", "--input-shape", "3", "32", "32"]
    main(["blocks=1", *words, "--attention", "both"])
    lines = capsys.readouterr().out.splitlines()
    listed = [line for line in lines if "blocks.0.attention.qkv" in line]
    assert sum("pruned" in line for line in listed) == 2
    assert any("blocks.0.attention.qkv:2" in line for line in listed)
