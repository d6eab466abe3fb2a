"""Cut networks of every shape arrive in ONNX Runtime as they are; a failed check writes nothing."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_prune.export import export_onnx as room
from lightning_prune.export.export_onnx import export_onnx
from lightning_prune.graph.groups import build_groups
from lightning_prune.surgery.compare import eval_outputs, noise_like
from lightning_prune.surgery.cut import cut_channels
from tests.networks import EXAMPLE, Depthwise, Residual, make, random_plan

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("kind", [Residual, Depthwise])
def test_a_cut_network_gives_the_same_in_the_runtime(kind: type[nn.Module], tmp_path: Path):
    model = make(kind)
    groups = build_groups(model, EXAMPLE)
    cut_channels(model, groups, random_plan(groups, seed=0))
    path = tmp_path / "new" / "net.onnx"
    assert export_onnx(model, path, EXAMPLE) < 1e-4
    x = noise_like(EXAMPLE, seed=3)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"input0": x.numpy()})
    (expected,) = eval_outputs(model, x)
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-4)
    assert [file.name for file in path.parent.iterdir()] == ["net.onnx"]


def test_a_failed_check_keeps_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"earlier")
    model = nn.Linear(4, 2)
    wrong = copy.deepcopy(model)
    with torch.no_grad():
        wrong.weight += 1
    convert = room.onnx_model
    monkeypatch.setattr(room, "onnx_model", lambda _, *rest: convert(wrong, *rest))
    with pytest.raises(AssertionError, match=r"allowed is 0\.001: nothing was written"):
        export_onnx(model, path, torch.zeros(1, 4))
    assert path.read_bytes() == b"earlier"
    assert export_onnx(model, path, torch.zeros(1, 4), tolerance=100) > 0.1
    assert path.read_bytes() != b"earlier"


def test_negative_tolerance(tmp_path: Path):
    with pytest.raises(ValueError, match="tolerance=-1: pass a fraction of at least 0"):
        export_onnx(nn.Linear(4, 2), tmp_path / "net.onnx", torch.zeros(1, 4), tolerance=-1)
