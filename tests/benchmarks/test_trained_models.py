import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("onnxruntime")
REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = ["resnet", "resnet_gn", "convnext", "mobilenet", "c2f", "shufflenet", "unet", "lstm",
         "vit", "swin"]  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_half_the_channels_of_every_kind_can_go(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masked and cut networks give the same, and a third of the MACs stays at most.

    Of the ShuffleNet only the residual stream goes: within its units grouped convolutions on both
    sides of a shuffle tie all channels.
    """
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    from trained_models import pruned
    from trained_networks import NETWORKS

    from lightning_prune.graph.macs import count_macs

    assert list(NETWORKS) == KINDS
    torch.manual_seed(0)
    model, pictures = NETWORKS[name]().eval(), torch.rand(4, 1, 8, 8)
    _, plan, masked, cut = pruned(model, pictures[:2], 0.5)
    assert plan
    with torch.no_grad():
        torch.testing.assert_close(cut(pictures), masked(pictures), rtol=1e-4, atol=1e-5)
    most = 0.61 if name == "shufflenet" else 0.34
    assert count_macs(cut, pictures) < most * count_macs(model, pictures)


@pytest.mark.slow
def test_quick_run_shows_masked_as_accurate_as_cut(tmp_path: Path) -> None:
    output = tmp_path / "trained.json"
    command = [sys.executable, "benchmarks/trained_models.py", "--quick", "--output", str(output)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    rows = json.loads(output.read_text())["rows"]
    assert list(rows) == ["resnet", "vit"]
    for row in rows.values():
        assert row["differ"] == 0
        assert row["masked"] == row["cut"]
        assert row["macs"] < 0.5
        assert row["onnx"] > 0
